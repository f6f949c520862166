//! The short run: every target with the committed corpus and a bounded number of seeded mutations (fuzz::driver).

fn main() -> std::process::ExitCode {
    fuzz::driver::short_run()
}
