//! What one durable write costs on this disk: a block over a preallocated file, and a block appended.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::Disk;
use crate::engine::window::{Latencies, latencies};

const BLOCK_BYTES: usize = 4096;

pub fn run(options: &Disk) -> io::Result<()> {
    let path = options.directory.join("fdatasync");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&vec![1; BLOCK_BYTES * options.writes], 0)?;
    file.sync_all()?;
    let over = timed(&file, options.writes, 0)?;
    let appended = timed(&file, options.writes, options.writes)?;
    std::fs::remove_file(&path)?;
    for (name, times) in [("over", over), ("append", appended)] {
        for (mark, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            println!("{name}_{mark}_nanos {}", times.value_at_quantile(quantile));
        }
    }
    Ok(())
}

fn timed(file: &File, writes: usize, first: usize) -> io::Result<Latencies> {
    let mut times = latencies()?;
    let block = [2; BLOCK_BYTES];
    for number in first..first + writes {
        let begun = Instant::now();
        file.write_all_at(&block, (number * BLOCK_BYTES) as u64)?;
        file.sync_data()?;
        times.saturating_record(begun.elapsed().as_nanos() as u64);
    }
    Ok(times)
}
