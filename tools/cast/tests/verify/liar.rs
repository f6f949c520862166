//! A proxy that tells one lie: it passes everything on as it is, but tampers with a frame of each WebSocket conversation.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// An event does not arrive.
    Drop,
    Duplicate,
    /// Two events change places.
    Reorder,
    /// An event that is in no log.
    Invent,
    /// An event with another text.
    Change,
    /// An operation is answered `ok` and never passed on.
    Swallow,
    /// An `ok` names another event.
    Renumber,
}

/// Of a conversation's events, or answers, this one is tampered with; of its operations each so-manieth. The last event of
/// a run is the first one of its conversation, so that no client waits for it in vain.
const WHICH: usize = 4;

/// Listens until the process ends; each connection gets two threads.
pub fn between(server: SocketAddr, lie: Option<Lie>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A house that is gone takes its clients with it.
            let Ok(house) = TcpStream::connect(server) else { continue };
            let told = Arc::new(Mutex::new(client.try_clone().unwrap()));
            let (client, house) = (Arc::new(client), Arc::new(house));
            for way in [Way::Up, Way::Down] {
                let (client, house, told) = (client.clone(), house.clone(), told.clone());
                thread::spawn(move || {
                    // However it ends, both ends of it do.
                    let _ = match way {
                        Way::Up => pass_up(&client, &house, &told, lie),
                        Way::Down => pass_down(&house, &told, lie),
                    };
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = house.shutdown(Shutdown::Both);
                });
            }
        }
    });
    address
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

fn pass_up(mut client: &TcpStream, mut house: &TcpStream, told: &Mutex<TcpStream>, lie: Option<Lie>) -> io::Result<()> {
    let head = head(client)?;
    house.write_all(&head)?;
    if lie != Some(Lie::Swallow) || !String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket") {
        return io::copy(&mut client, &mut house).map(drop);
    }
    let mut operations = 0;
    loop {
        let frame = Frame::read(client)?;
        let said: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        operations += usize::from(said["op"] == "publish");
        if said["op"] == "publish" && operations.is_multiple_of(WHICH) {
            let ok = json!({"op": "ok", "id": said["id"], "room": said["room"], "seq": 1});
            told.lock().unwrap().write_all(&Frame::text(ok.to_string()).bytes(false))?;
        } else {
            house.write_all(&frame.bytes(true))?;
        }
    }
}

fn pass_down(house: &TcpStream, told: &Mutex<TcpStream>, lie: Option<Lie>) -> io::Result<()> {
    let head = head(house)?;
    told.lock().unwrap().write_all(&head)?;
    if !head.starts_with(b"HTTP/1.1 101") {
        let mut client = told.lock().unwrap().try_clone()?;
        return io::copy(&mut &*house, &mut client).map(drop);
    }
    let mut conversation = Conversation { lie, counted: 0, held: None };
    loop {
        for frame in conversation.tampered(Frame::read(house)?) {
            told.lock().unwrap().write_all(&frame.bytes(false))?;
        }
    }
}

struct Conversation {
    lie: Option<Lie>,
    counted: usize,
    held: Option<Frame>,
}

impl Conversation {
    fn tampered(&mut self, frame: Frame) -> Vec<Frame> {
        let Some(lie) = self.lie else { return vec![frame] };
        let mut said: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        let concerned = match lie {
            Lie::Renumber => said["op"] == "ok" && said["seq"].is_u64(),
            _ => said["op"] == "event",
        };
        if !concerned {
            return vec![frame];
        }
        self.counted += 1;
        if let Some(held) = self.held.take() {
            return vec![frame, held];
        }
        if self.counted != WHICH {
            return vec![frame];
        }
        let seq = said["seq"].as_u64().unwrap();
        match lie {
            Lie::Drop => Vec::new(),
            Lie::Duplicate => vec![frame.clone(), frame],
            Lie::Reorder => {
                self.held = Some(frame);
                Vec::new()
            }
            Lie::Invent => {
                said["seq"] = json!(seq + 1_000_000);
                vec![frame, Frame::text(said.to_string())]
            }
            Lie::Change => {
                said["data"] = json!({"mark": "what nobody wrote"});
                vec![Frame::text(said.to_string())]
            }
            Lie::Renumber => {
                said["seq"] = json!(seq + 1);
                vec![Frame::text(said.to_string())]
            }
            Lie::Swallow => vec![frame],
        }
    }
}

/// Up to and with the empty line. Byte by byte, so that nothing behind it is taken.
fn head(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(head)
}

#[derive(Clone)]
struct Frame {
    /// Its first byte: the end of a message, and the kind.
    first: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn text(payload: String) -> Frame {
        Frame { first: 0x81, payload: payload.into_bytes() }
    }

    fn read(mut from: &TcpStream) -> io::Result<Frame> {
        let mut start = [0; 2];
        from.read_exact(&mut start)?;
        let mut long = [0; 8];
        let length = match start[1] & 0x7f {
            126 => {
                from.read_exact(&mut long[6..])?;
                u64::from_be_bytes(long)
            }
            127 => {
                from.read_exact(&mut long)?;
                u64::from_be_bytes(long)
            }
            length => u64::from(length),
        };
        let mut mask = [0; 4];
        if start[1] & 0x80 != 0 {
            from.read_exact(&mut mask)?;
        }
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Frame { first: start[0], payload })
    }

    /// Towards the server it must bear a mask, towards a client none.
    fn bytes(&self, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ 0..=125 => bytes.push(bit | length as u8),
            length @ 126..=0xffff => {
                bytes.push(bit | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}
