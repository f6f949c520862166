//! The compressed forms of what clients are sent. A frame that many are sent (an event, a signal) is compressed for the first
//! of them and remembered for the others, so a room costs one compression per reactor and dialect, not one per member.
//!
//! Frames are known by where their bytes lie: whoever shares them shares the place, so neither rooms nor the store have to
//! know of any of this, and whichever way a member is served it is sent the same bytes. What is remembered holds on to the
//! plain frame as well: its place cannot become another one's.

use std::collections::HashMap;

use bytes::Bytes;

use crate::config::DeflateSettings;
use crate::http::Window;
use crate::limits::PACKED_BYTES_MAX;
use crate::ws::Deflater;

#[derive(Debug)]
pub struct Packer {
    deflater: Deflater,
    threshold: usize,
    young: Forms,
    /// What was young before: whatever is asked for again in time becomes young again.
    old: Forms,
    /// Of the young ones, plain and compressed. Passed by at most one message.
    bytes: usize,
}

type Forms = HashMap<Key, Form, foldhash::fast::RandomState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    place: usize,
    length: usize,
    window: Window,
}

#[derive(Clone, Debug)]
struct Form {
    plain: Bytes,
    /// The plain one, where compressing would not shorten it.
    packed: Bytes,
}

impl Packer {
    pub fn new(settings: &DeflateSettings) -> Packer {
        Packer {
            deflater: Deflater::new(settings.level),
            threshold: settings.threshold,
            young: Forms::default(),
            old: Forms::default(),
            bytes: 0,
        }
    }

    /// Other settings hold from now on, for clients that are there too.
    pub fn tune(&mut self, settings: &DeflateSettings) {
        if (self.deflater.level(), self.threshold) != (settings.level, settings.threshold) {
            *self = Packer::new(settings);
        }
    }

    /// A reply's frames as a client with this window is sent them. Some are for several: whoever has more of them holds on to
    /// them.
    pub fn reply(&mut self, frames: Bytes, window: Option<Window>) -> Bytes {
        match window {
            Some(window) if frames.is_unique() => self.pack(&frames, window).map_or(frames, Bytes::from),
            window => self.form(&frames, window),
        }
    }

    /// Frames that others are sent too, as a client with this window is sent them.
    pub fn form(&mut self, frames: &Bytes, window: Option<Window>) -> Bytes {
        let Some(window) = window.filter(|_| frames.len() >= self.threshold) else { return frames.clone() };
        let window = Deflater::window_for(frames.len(), window);
        let key = Key { place: frames.as_ptr() as usize, length: frames.len(), window };
        if let Some(form) = self.young.get(&key) {
            return form.packed.clone();
        }
        let form = self.old.remove(&key).unwrap_or_else(|| {
            let packed = self.deflater.pack(frames, self.threshold, window);
            let packed = packed.map_or_else(|| frames.clone(), |packed| packed.into_boxed_slice().into());
            Form { plain: frames.clone(), packed }
        });
        let packed = form.packed.clone();
        self.remember(key, form);
        packed
    }

    /// Frames that nobody else is sent; `None` where none of them is to be compressed.
    pub fn pack(&mut self, frames: &[u8], window: Window) -> Option<Vec<u8>> {
        let worth_a_look = frames.len() >= self.threshold;
        worth_a_look.then(|| self.deflater.pack(frames, self.threshold, window)).flatten()
    }

    /// Messages compressed since the last call.
    pub fn take_deflated(&mut self) -> u64 {
        self.deflater.take_deflated()
    }

    fn remember(&mut self, key: Key, form: Form) {
        self.bytes += form.plain.len() + form.packed.len() + size_of::<(Key, Form)>();
        self.young.insert(key, form);
        if self.bytes > PACKED_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ws::frame;

    fn packer() -> Packer {
        Packer::new(&DeflateSettings { enabled: true, threshold: 100, level: 1 })
    }

    /// xorshift32: nothing that zlib could make shorter.
    fn dice(state: &mut u32) -> u8 {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state as u8
    }

    #[test]
    fn a_shared_frame_is_compressed_once_and_sent_as_the_same_bytes() {
        let mut packer = packer();
        let frame = frame::text(&[b'x'; 1000]);
        let first = packer.form(&frame, Some(Window::Full));
        assert!(first.len() < 100);
        for _ in 0..100 {
            let again = packer.form(&frame.clone(), Some(Window::Full));
            assert_eq!(again.as_ptr(), first.as_ptr());
        }
        // It is short enough for a smaller window to do for everybody.
        assert_eq!(packer.form(&frame, Some(Window::Middle)).as_ptr(), first.as_ptr());
        assert_eq!(packer.take_deflated(), 1);
        assert_ne!(packer.form(&frame, Some(Window::Small)).as_ptr(), first.as_ptr());
        assert_eq!(packer.take_deflated(), 1);
        assert_eq!(packer.form(&frame, None).as_ptr(), frame.as_ptr());
    }

    #[test]
    fn what_does_not_gain_is_remembered_as_it_is() {
        let mut packer = packer();
        let mut state = 1u32;
        let noise: Vec<u8> = (0..1000).map(|_| dice(&mut state)).collect();
        let dull = frame::text(&noise);
        let short = frame::text(&[b'x'; 90]);
        for _ in 0..3 {
            assert_eq!(packer.form(&dull, Some(Window::Full)).as_ptr(), dull.as_ptr());
            assert_eq!(packer.form(&short, Some(Window::Full)).as_ptr(), short.as_ptr());
        }
        assert_eq!(packer.take_deflated(), 1);
    }

    #[test]
    fn a_reply_is_compressed_and_forgotten_one_for_several_is_not() {
        let mut packer = packer();
        let reply = packer.reply(frame::text(&[b'x'; 1000]), Some(Window::Full));
        assert!(reply.len() < 100 && packer.young.is_empty());
        let frame = frame::text(&[b'x'; 1000]);
        for _ in 0..3 {
            assert_eq!(packer.reply(frame.clone(), Some(Window::Full)), reply);
        }
        assert_eq!((packer.take_deflated(), packer.young.len()), (2, 1));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut packer = packer();
        let used = frame::text(&vec![b'u'; 100_000]);
        let frames: Vec<Bytes> = (0..1000).map(|number| frame::text(format!("{number:60000}").as_bytes())).collect();
        for frame in &frames {
            packer.form(&used, Some(Window::Full));
            packer.form(frame, Some(Window::Full));
            let held: usize = [&packer.young, &packer.old]
                .into_iter()
                .flat_map(|forms| forms.values())
                .map(|form| form.plain.len() + form.packed.len())
                .sum();
            assert!(held <= PACKED_BYTES_MAX + 200_000, "{held}");
        }
        assert_eq!(packer.take_deflated(), 1001);
        packer.tune(&DeflateSettings { enabled: true, threshold: 100, level: 9 });
        assert!(packer.young.is_empty() && packer.old.is_empty());
    }
}
