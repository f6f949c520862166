//! The peer on tokio-tungstenite: tokio's current_thread runtime, one task for each connection.
//!
//! ```text
//! peer-tokio-tungstenite PORT
//! ```
//!
//! Choices, each in its favour:
//! - replies and queued messages are `feed`, and flushed once when there is nothing more to do at once, so that what was read
//!   together is answered with one write; `send` would flush each;
//! - the stream is not split, which would put a lock around it: one task waits for both the socket and the queue;
//! - the queue is emptied with `recv_many`;
//! - texts are `Utf8Bytes`, which the library made for sharing;
//! - a read buffer of 4 KiB, which its documentation names for many connections. It also clears that buffer before every
//!   read, which of the usual 128 KiB costs more than the rest of a small message;
//! - TCP_NODELAY; no compression, which it does not have; `unconstrained`, since tokio's budget is for tasks that never wait.

use std::future::Future;
use std::sync::Arc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use peers::{BACKLOG, BATCH, Client, Outcome, Rooms, Service, port, route};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

const READ_BUFFER: usize = 4096;

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
        let rooms = Arc::clone(&rooms);
        tokio::spawn(tokio::task::unconstrained(async move {
            // However a connection ends, it concerns that connection alone.
            let _ = connect(stream, &rooms).await;
        }));
    }
}

async fn connect(stream: TcpStream, rooms: &Arc<Rooms<Utf8Bytes>>) -> Outcome {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let mut service = Service::Rooms;
    #[allow(clippy::result_large_err)] // The library's callback has that type.
    let ws = accept_hdr_async_with_config(
        stream,
        |request: &Request, response: Response| {
            service = route(request.uri().path()).ok_or_else(not_found)?;
            Ok(response)
        },
        Some(config),
    )
    .await?;
    serve(ws, service, rooms).await
}

fn not_found() -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

async fn serve(mut ws: WebSocketStream<TcpStream>, service: Service, rooms: &Arc<Rooms<Utf8Bytes>>) -> Outcome {
    let (sender, mut queue) = mpsc::unbounded_channel();
    let mut client = Client::new(service, rooms, sender);
    let mut batch = Vec::new();
    if let Some(text) = client.greeting()? {
        ws.send(Message::Text(text)).await?;
    }
    loop {
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut batch, BATCH) => {
                for text in batch.drain(..) {
                    ws.feed(Message::Text(text)).await?;
                }
            }
            message = ws.next() => {
                if !on_message(&mut ws, &mut client, message).await? {
                    return Ok(());
                }
                while let Some(message) = at_once(ws.next()) {
                    if !on_message(&mut ws, &mut client, message).await? {
                        return Ok(());
                    }
                }
            }
        }
        ws.flush().await?;
    }
}

/// What is there without waiting, such as a message that was read along with the last one.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

/// Whether the connection goes on.
async fn on_message(
    ws: &mut WebSocketStream<TcpStream>,
    client: &mut Client<Utf8Bytes>,
    message: Option<Result<Message, Error>>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    match message {
        Some(Ok(Message::Text(text))) => {
            if let Some(reply) = client.on_text(&text)? {
                ws.feed(Message::Text(reply)).await?;
            }
            Ok(true)
        }
        // The library answers pings and closings itself, the latter on the next read.
        Some(Ok(_)) => Ok(true),
        Some(Err(error)) => Err(error.into()),
        None => Ok(false),
    }
}
