//! The configuration: whatever is written in the file, in the environment and in the flags, it is settings or a list of
//! problems, each with words; and settings describe themselves, in a text that is a configuration again.

use std::io;
use std::path::{Path, PathBuf};

use commitcast::config::{Flags, Settings};

use crate::input::Input;

pub fn config(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    let (file, rest) = text.split_once('\0').unwrap_or((&text, ""));
    let variables = rest.split('\0').filter_map(|line| line.split_once('=')).map(|(name, value)| {
        let name = if choice & 1 == 0 { format!("COMMITCAST_{name}") } else { name.to_owned() };
        (name, value.to_owned())
    });
    let flags = Flags {
        config: Some(PathBuf::from("commitcast.toml")),
        listen: if choice & 2 == 0 { Vec::new() } else { vec![rest.to_owned()] },
        debug: choice & 4 != 0,
        log_format: (choice & 8 != 0).then(|| rest.to_owned()),
        log_level: (choice & 16 != 0).then(|| rest.to_owned()),
        ..Flags::default()
    };
    let read = |path: &Path| match path.to_str() {
        Some("commitcast.toml") => Ok(file.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    match Settings::build(&flags, variables, read) {
        Ok(settings) => {
            assert!(!settings.listeners.is_empty() && settings.reactors > 0);
            assert!(settings.reload(&settings).is_ok() && settings.needs_restart(&settings).is_empty());
            assert!(!settings.describe().is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
