//! Space kept back for the day the disk is full: with a full disk not even a DELETE can be logged.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::clock::Wall;
use crate::limits;

pub(super) const BALLAST: &str = "ballast";

/// A file that only takes space, to have something to give.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    pub(super) held: bool,
    pub(super) looked_at: Option<Wall>,
}

impl Ballast {
    pub(super) fn held_in(dir: &Path) -> Ballast {
        let mut ballast = Ballast { path: dir.join(BALLAST), held: false, looked_at: None };
        ballast.hold();
        ballast
    }

    /// Real zeros, since a hole in a file reserves nothing; and twice the size at first, so that it is taken only where
    /// as much stays free: else it would be released and taken by turns.
    pub(super) fn hold(&mut self) {
        self.held =
            fs::metadata(&self.path).is_ok_and(|file| file.len() == limits::BALLAST_BYTES) || self.write().is_ok();
        if !self.held {
            let _ = fs::remove_file(&self.path);
            log::warn!("no space for the ballast file {}", self.path.display());
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        io::copy(&mut io::repeat(0).take(2 * limits::BALLAST_BYTES), &mut file)?;
        file.set_len(limits::BALLAST_BYTES)
    }

    /// Whether there is space now that was not there before.
    pub(super) fn release(&mut self) -> bool {
        if !std::mem::take(&mut self.held) {
            return false;
        }
        self.looked_at = None;
        let released = fs::remove_file(&self.path);
        match &released {
            Ok(()) => log::error!("the disk is full: released {}", self.path.display()),
            Err(error) => log::error!("the disk is full, and {} stays: {error}", self.path.display()),
        }
        released.is_ok()
    }
}
