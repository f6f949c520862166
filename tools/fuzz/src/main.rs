//! One program: built as it stands it replays inputs, built by `tools/fuzz/run` it is libFuzzer with the target that
//! the variable `FUZZ_TARGET` names.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
static TARGET: std::sync::LazyLock<&fuzz::targets::Target> = std::sync::LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::driver::find(&name).unwrap_or_else(|why| panic!("FUZZ_TARGET: {why}"))
});

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((name, paths)) if !paths.is_empty() => fuzz::driver::replay(name, paths),
        _ => Err("fuzz TARGET FILE…".to_owned()),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            std::process::ExitCode::FAILURE
        }
    }
}
