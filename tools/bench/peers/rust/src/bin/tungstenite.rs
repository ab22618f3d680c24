//! tungstenite under tokio. Echo is the `forward` of tokio-tungstenite's own example, which flushes when nothing more
//! is there to read; fan-out is a tokio broadcast channel, and waiting messages are sent with one flush.

use fantail_bench_peers::{CHANNEL_CAPACITY, Mode, Outcome, run};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, Sender};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig};

fn main() -> Outcome {
    let (publish, _) = broadcast::channel(CHANNEL_CAPACITY);
    run(move |stream, mode| {
        let publish = publish.clone();
        // A client that disconnects ends its task with an error, which is ignored.
        tokio::spawn(async move {
            let _ = match mode {
                Mode::Echo => echo(stream).await,
                Mode::Fanout => subscribe(stream, publish).await,
            };
        });
    })
}

async fn echo(stream: TcpStream) -> Outcome {
    let (write, read) = accept_async_with_config(stream, Some(config())).await?.split();
    let messages =
        read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    Ok(messages.forward(write).await?)
}

async fn subscribe(stream: TcpStream, publish: Sender<Utf8Bytes>) -> Outcome {
    let mut publications = publish.subscribe();
    let mut socket = accept_async_with_config(stream, Some(config())).await?;
    loop {
        tokio::select! {
            publication = publications.recv() => {
                socket.feed(Message::Text(publication?)).await?;
                while let Ok(publication) = publications.try_recv() {
                    socket.feed(Message::Text(publication)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => drop(publish.send(text)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            }
        }
    }
}

/// Its documentation: 4 KiB where many connections matter more than a high read load. With short messages that makes
/// echoes cheaper too, since the whole buffer is zeroed before each read.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 << 10)
}
