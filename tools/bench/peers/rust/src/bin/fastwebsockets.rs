//! fastwebsockets behind hyper. Echo is its own `echo_server` example; fan-out is its `echo_server_split` with a tokio
//! broadcast channel, and a small buffer, so that waiting messages are sent with one write.

use bytes::Bytes;
use fantail_bench_peers::{CHANNEL_CAPACITY, Mode, Outcome, run};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError,
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::BufWriter;
use tokio::sync::broadcast::{self, Sender};

fn main() -> Outcome {
    let (publish, _) = broadcast::channel(CHANNEL_CAPACITY);
    run(move |stream, mode| {
        let publish = publish.clone();
        // A client that disconnects ends its task with an error, which is ignored.
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, mode, publish.clone()));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    })
}

async fn answer(
    mut request: Request<Incoming>,
    mode: Mode,
    publish: Sender<Bytes>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade(&mut request)?;
    // Subscribe before the response is sent: a connected client receives every publication.
    let publications = (mode == Mode::Fanout).then(|| publish.subscribe());
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ = match publications {
            None => echo(socket).await,
            Some(publications) => subscribe(socket, publish, publications).await,
        };
    }));
    Ok(response)
}

async fn echo(socket: UpgradeFut) -> Outcome {
    let mut socket = FragmentCollector::new(socket.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn subscribe(
    socket: UpgradeFut,
    publish: Sender<Bytes>,
    mut publications: broadcast::Receiver<Bytes>,
) -> Outcome {
    let (reader, mut writer) = socket.await?.split(|stream| {
        let (reader, writer) = tokio::io::split(stream);
        (reader, BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer))
    });
    let mut reader = FragmentCollectorRead::new(reader);
    let read = async {
        loop {
            // Answers to pings and to a close are not needed here.
            let mut ignore = |_| async { Ok::<_, WebSocketError>(()) };
            let frame = reader.read_frame(&mut ignore).await?;
            match frame.opcode {
                OpCode::Close => return Outcome::Ok(()),
                OpCode::Text | OpCode::Binary => {
                    drop(publish.send(Bytes::copy_from_slice(&frame.payload)));
                }
                _ => {}
            }
        }
    };
    let write = async {
        loop {
            let publication = publications.recv().await?;
            writer.write_frame(Frame::text(Payload::Borrowed(&publication))).await?;
            while let Ok(publication) = publications.try_recv() {
                writer.write_frame(Frame::text(Payload::Borrowed(&publication))).await?;
            }
            writer.flush().await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        Outcome::Ok(())
    };
    tokio::select! { outcome = read => outcome, outcome = write => outcome }
}

const WRITE_BUFFER_BYTES: usize = 1 << 10;
