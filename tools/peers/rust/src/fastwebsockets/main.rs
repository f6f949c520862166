//! The peer on fastwebsockets: tokio's current_thread runtime, hyper for the handshake as in its own examples.
//!
//! ```text
//! peer-fastwebsockets PORT
//! ```
//!
//! Choices, each in its favour:
//! - `simd` for UTF-8; `unconstrained` tasks and `lto`, as its echo server and its benchmarks have them;
//! - after the handshake the plain TCP stream is taken out of hyper, which saves a virtual call for each read and write;
//! - it writes every frame at once, so the stream is buffered and flushed once when there is nothing more to do at once: what
//!   was read together is answered with one write. `set_writev_threshold(0)` lets it put header and payload into that buffer
//!   directly instead of into one of its own first;
//! - it is split by tokio's `into_split`, which has no lock; a split is needed since a read that has begun must not be dropped;
//! - the queue is emptied with `recv_many`, the payloads are shared `Bytes`;
//! - TCP_NODELAY; no compression, which it does not have.

use std::convert::Infallible;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketError, WebSocketWrite, after_handshake_split, upgrade,
};
use futures_util::FutureExt;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use peers::{BACKLOG, BATCH, Client, Outcome, Rooms, Service, port, route};
use tokio::io::{AsyncReadExt, BufWriter, Chain};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// What hyper had read beyond the request, then the socket.
type Reading = FragmentCollectorRead<Chain<Cursor<Bytes>, OwnedReadHalf>>;
type Writing = WebSocketWrite<BufWriter<OwnedWriteHalf>>;

const WRITE_BUFFER: usize = 4096;

fn main() -> Outcome {
    let port = port()?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(accept(port))
}

async fn accept(port: u16) -> Outcome {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener = socket.listen(BACKLOG)?;
    let rooms = Arc::new(Rooms::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let rooms = Arc::clone(&rooms);
        tokio::spawn(async move {
            let service = service_fn(|request| on_request(request, Arc::clone(&rooms)));
            // However a connection ends, it concerns that connection alone.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn on_request(
    mut request: Request<Incoming>,
    rooms: Arc<Rooms<Bytes>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let Some(service) = route(request.uri().path()) else {
        return Ok(refusal(StatusCode::NOT_FOUND));
    };
    let Ok((response, socket)) = upgrade::upgrade(&mut request) else {
        return Ok(refusal(StatusCode::BAD_REQUEST));
    };
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ = connect(socket, service, &rooms).await;
    }));
    Ok(response)
}

fn refusal(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

async fn connect(socket: upgrade::UpgradeFut, service: Service, rooms: &Arc<Rooms<Bytes>>) -> Outcome {
    let upgraded = socket.await?.into_inner().into_inner();
    let parts =
        upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| "hyper gave back another stream than it was given")?;
    let (read, write) = parts.io.into_inner().into_split();
    let read = Cursor::new(parts.read_buf).chain(read);
    let write = BufWriter::with_capacity(WRITE_BUFFER, write);
    let (mut read, mut write) = after_handshake_split(read, write, Role::Server);
    read.set_auto_close(false);
    read.set_auto_pong(false);
    write.set_writev_threshold(0);
    serve(FragmentCollectorRead::new(read), write, service, rooms).await
}

async fn serve(read: Reading, mut write: Writing, service: Service, rooms: &Arc<Rooms<Bytes>>) -> Outcome {
    let (sender, mut queue) = mpsc::unbounded_channel();
    let mut client = Client::new(service, rooms, sender);
    let mut batch = Vec::new();
    if let Some(text) = client.greeting()? {
        write.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
        write.flush().await?;
    }
    // It owns the reading half, so that it can go on over many turns of the loop.
    let mut reading = pin!(read_one(read));
    loop {
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut batch, BATCH) => {
                for text in batch.drain(..) {
                    write.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
                }
            }
            (read, message) = &mut reading => {
                let mut goes_on = on_message(&mut write, &mut client, message?).await?;
                reading.set(read_one(read));
                // What is there without waiting, such as a message that was read along with the last one.
                while goes_on && let Some((read, message)) = (&mut reading).now_or_never() {
                    goes_on = on_message(&mut write, &mut client, message?).await?;
                    reading.set(read_one(read));
                }
                if !goes_on {
                    return Ok(write.flush().await?);
                }
            }
        }
        write.flush().await?;
    }
}

/// A whole message or a control frame.
struct Read {
    opcode: OpCode,
    payload: BytesMut,
}

async fn read_one(mut read: Reading) -> (Reading, Result<Read, WebSocketError>) {
    // Nothing is owed: pings and closings are answered below, where the writing half is.
    let owed = &mut |_: Frame<'static>| async { Ok::<(), WebSocketError>(()) };
    let message = read.read_frame(owed).await.map(|frame| Read { opcode: frame.opcode, payload: owned(frame.payload) });
    (read, message)
}

/// The payload without a copy where it is a part of the read buffer, as that of every unfragmented message is.
fn owned(payload: Payload<'static>) -> BytesMut {
    match payload {
        Payload::Bytes(bytes) => bytes,
        other => BytesMut::from(&*other),
    }
}

/// Whether the connection goes on.
async fn on_message(
    write: &mut Writing,
    client: &mut Client<Bytes>,
    message: Read,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    match message.opcode {
        OpCode::Text => {
            // The library has checked it once already and gives bytes all the same.
            let text = std::str::from_utf8(&message.payload)?;
            if let Some(reply) = client.on_text(text)? {
                write.write_frame(Frame::text(Payload::Borrowed(&reply))).await?;
            }
        }
        OpCode::Ping => write.write_frame(Frame::pong(Payload::Bytes(message.payload))).await?,
        OpCode::Close => write.write_frame(Frame::close_raw(Payload::Bytes(message.payload))).await?,
        _ => {}
    }
    Ok(message.opcode != OpCode::Close)
}
