//! A backend that callbacks ask: HTTP/1.1 with connections that are kept, a thread each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use socket2::SockRef;

/// A backend that answers as a function says.
pub struct Backend {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<State>,
    listener: TcpListener,
}

/// Answers of a backend that wait until a test lets them go.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Lets them go.
    pub fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits until they may go.
    pub fn wait(&self) {
        while !self.0.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

type Answerer = dyn Fn(&BackendRequest) -> BackendAnswer + Send + Sync;

struct State {
    answer: Box<Answerer>,
    requests: Mutex<Vec<BackendRequest>>,
    connections: AtomicUsize,
    /// Connections that may be open.
    streams: Mutex<Vec<TcpStream>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct BackendRequest {
    /// The request line and the headers, a line each.
    pub head: Vec<String>,
    /// The decoded body; null without one.
    pub body: Value,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum BackendAnswer {
    /// Status 200 and this body.
    Json(Value),
    /// A status and a body, after a while.
    Raw(u16, String, Duration),
    /// The bytes as they are; then the connection ends.
    Bytes(Vec<u8>),
}

impl Backend {
    /// Listens on loopback.
    pub fn start(
        answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Listens at an address, perhaps that of a backend that was killed.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
    ) -> Self {
        let serve_plain = |stream: &TcpStream, state: &State| serve(stream, state);
        Self::listen(address, answer, "http", serve_plain)
    }

    /// Listens on loopback, and speaks TLS with a certificate that it makes for this host name. Returns the
    /// certificate in PEM, too.
    pub fn start_tls(
        host: &str,
        answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
    ) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a host name");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they are known")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the key is that of the certificate");
        let config = Arc::new(config);
        let serve_tls = move |stream: &TcpStream, state: &State| {
            let tls = ServerConnection::new(config.clone()).expect("a valid configuration");
            serve(StreamOwned::new(tls, stream), state);
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        (Self::listen(address, answer, "https", serve_tls), made.cert.pem())
    }

    fn listen(
        address: SocketAddr,
        answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
        scheme: &'static str,
        serve: impl Fn(&TcpStream, &State) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let kept = listener.try_clone().expect("there are descriptors");
        let state = Arc::new(State {
            answer: Box::new(answer),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, serve) = (shared.clone(), serve.clone());
                let kept = stream.try_clone().expect("there are descriptors");
                state.streams.lock().expect("no thread panicked with it").push(kept);
                state.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    serve(&stream, &state);
                    // A close alone does not end the connection: a worker of another test's server that has just left
                    // the shared descriptor table may hold a copy of the descriptor.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { scheme, address, state, listener: kept }
    }

    /// Ends as a process that is killed: nothing listens any more, and connections end wherever they are. Returns the
    /// address, which is free.
    pub fn kill(&self) -> SocketAddr {
        // The workers of a server that was started since have copies of the descriptor, so that a close alone would not
        // end the socket.
        SockRef::from(&self.listener).shutdown(Shutdown::Both).expect("it listens");
        for stream in self.state.streams.lock().expect("no thread panicked with it").drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<BackendRequest> {
        self.state.requests.lock().expect("no thread panicked with it").clone()
    }

    /// The connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl BackendRequest {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.iter().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn serve(stream: impl Read + Write, state: &State) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        state.requests.lock().expect("no thread panicked with it").push(request.clone());
        let (bytes, is_last) = match (state.answer)(&request) {
            BackendAnswer::Json(body) => (response(200, &body.to_string()), false),
            BackendAnswer::Raw(status, body, delay) => {
                thread::sleep(delay);
                (response(status, &body), false)
            }
            BackendAnswer::Bytes(bytes) => (bytes, true),
        };
        let writer = reader.get_mut();
        if writer.write_all(&bytes).and_then(|()| writer.flush()).is_err() || is_last {
            return;
        }
    }
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn read(reader: &mut impl BufRead) -> Option<BackendRequest> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse().expect("a number");
        }
        head.push(line.to_owned());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = match length {
        0 => Value::Null,
        _ => serde_json::from_slice(&body).expect("a body is JSON"),
    };
    Some(BackendRequest { head, body })
}
