//! What the reference shows of tungstenite.

use std::cell::Cell;
use std::error::Error;

use fantail::config::DriverChoice;

use crate::support::{Child, Client};
use redirected as tungstenite;

thread_local! {
    /// The port of the server, in place of the one that the example names.
    static PORT: Cell<u16> = const { Cell::new(0) };
}

mod redirected {
    use std::net::TcpStream;

    use ::tungstenite::handshake::client::Response;
    use ::tungstenite::stream::MaybeTlsStream;
    use ::tungstenite::{Error, WebSocket};

    pub fn connect(
        url: &str,
    ) -> Result<(WebSocket<MaybeTlsStream<TcpStream>>, Response), Box<Error>> {
        let url = url.replace("8000", &super::PORT.get().to_string());
        ::tungstenite::connect(url).map_err(Box::new)
    }
}

fn example() -> Result<(), Box<dyn Error>> {
    let (mut socket, _) = tungstenite::connect("ws://127.0.0.1:8000/ws?channel=a")?;
    socket.send("hello".into())?;
    println!("{}", socket.read()?); // hello
    Ok(())
}

#[test]
fn a_publisher_receives_its_own_publication() {
    let child = Child::start(DriverChoice::Auto, &[]);
    PORT.set(child.edge().port());
    example().unwrap();
    let history = Client::connect(child.edge()).get("/poll?channel=a&since=0").json();
    assert_eq!(history["publications"][0]["data"], "hello");
}
