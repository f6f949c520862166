//! Reading a first answer: JSON with certain fields, and the digits of its serial.

use std::io;

use serde_json::Value;

use super::wrong;
use crate::wire::{SERIAL_DIGITS, serial};

/// The object that this message is, when it has these fields with these texts.
pub fn object(message: &[u8], fields: &[(&str, &str)]) -> io::Result<Value> {
    let expected = || fields.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(", ");
    let value: Value = serde_json::from_slice(message).map_err(|_| wrong(&expected(), message))?;
    let fits = fields.iter().all(|(name, text)| value.get(name).and_then(Value::as_str) == Some(text));
    if fits { Ok(value) } else { Err(wrong(&expected(), message)) }
}

/// The digits of a number that is a serial.
pub fn digits(value: Option<&Value>, message: &[u8]) -> io::Result<Vec<u8>> {
    let number = value.and_then(Value::as_u64).map(|number| number.to_string().into_bytes());
    number.filter(|digits| serial(digits).is_some()).ok_or_else(|| wrong("a serial", message))
}

/// The digits at the end of a text.
pub fn last_digits(value: Option<&Value>, message: &[u8]) -> io::Result<Vec<u8>> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let digits = text.len().checked_sub(SERIAL_DIGITS).and_then(|at| text.as_bytes().get(at..));
    let digits = digits.filter(|digits| serial(digits).is_some());
    digits.map(<[u8]>::to_vec).ok_or_else(|| wrong("a serial at the end of a text", message))
}
