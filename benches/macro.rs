//! The macro bench: commitcast beside the floor and its peers. All of it is in the crate `benches`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    benches::suite::main(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_BIN_EXE_commitcast")))
}
