//! Rooms with a past: events that were stored before the measuring starts.

use std::io;

use serde_json::Value;

use crate::servers::{Server, post};
use crate::vocabulary::{Native, room_name};
use crate::wire::{FIRST_SERIAL, SERIAL_PLACE};

/// Events in one request: a body of at most 1 MiB.
const LINES: usize = 2_000;

/// Stores `events` in each of the first `rooms`; where each of them stands then.
pub fn write(server: &Server, rooms: usize, events: usize) -> io::Result<Vec<(String, u64)>> {
    let mut standings = vec![(String::new(), 0); rooms];
    let lines: Vec<(usize, usize)> = (0..rooms).flat_map(|room| (0..events).map(move |event| (room, event))).collect();
    for chunk in lines.chunks(LINES) {
        let mut body = String::new();
        for (room, event) in chunk {
            body.push_str(&line(*room, *event));
        }
        let answer = post(server.port, "/v1/batch", &body)?;
        let results = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut stored = 0;
        for ((room, _), result) in chunk.iter().zip(results.filter(Value::is_object)) {
            let (epoch, seq) = (result.get("epoch").and_then(Value::as_str), result.get("seq").and_then(Value::as_u64));
            let (Some(epoch), Some(seq)) = (epoch, seq) else {
                return Err(io::Error::other(format!("an event was not stored: {result}")));
            };
            standings[*room] = (epoch.to_owned(), seq);
            stored += 1;
        }
        if stored != chunk.len() {
            let head: String = answer.chars().take(300).collect();
            return Err(io::Error::other(format!("{stored} of {} events were stored: {head}", chunk.len())));
        }
    }
    Ok(standings)
}

/// The data of a native publisher's event, so that whoever hears it knows it.
fn line(room: usize, event: usize) -> String {
    let data = Native::data().replace(SERIAL_PLACE, &(FIRST_SERIAL + event as u64).to_string());
    format!("{{\"room\":\"{}\",\"type\":\"message\",\"data\":{data},\"id\":\"h-{event}\"}}\n", room_name(room))
}
