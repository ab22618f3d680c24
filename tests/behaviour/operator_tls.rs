//! What an operator types, with a server that speaks TLS.

use crate::operator::{fail, subscribe, succeed};
use crate::support::{Child, TempFile, on_both_drivers};

/// The address with this scheme, as the server prints it.
fn address(child: &Child, scheme: &str) -> String {
    let mut words = child.output.iter().filter_map(|line| line.split_whitespace().next());
    words.find(|word| word.starts_with(scheme)).expect("an address").to_owned()
}

on_both_drivers! {
    fn commands_reach_a_server_whose_certificate_they_believe(driver) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let name = |what: &str| format!("operator-{driver:?}-{what}");
        let cert = TempFile::new(&name("cert"), &made.cert.pem());
        let key = TempFile::new(&name("key"), &made.signing_key.serialize_pem());
        let child = Child::start(
            driver,
            &[
                "--tls-cert", cert.path(), "--tls-key", key.path(),
                "--listen", "127.0.0.1:0 tls", "--tcp", "127.0.0.1:0 tls",
            ],
        );
        let (https, tls) = (address(&child, "https://"), address(&child, "tls://"));
        let publish = ["publish", "news", "x", "--server", &https];
        let with = |more: &[&'static str]| [&publish[..], more].concat();
        succeed(&[&publish[..], &["--cacert", cert.path()]].concat());
        succeed(&with(&["-k"]));
        // Nothing that the system knows has signed it, and a key is not a certificate.
        fail(&publish, &["TLS with 127.0.0.1", "certificate", "see --cacert and --insecure"]);
        fail(&[&publish[..], &["--cacert", key.path()]].concat(), &["there is no certificate in it"]);
        fail(&with(&["--cacert", "/nowhere"]), &["--cacert /nowhere"]);
        // A name that is not that of the certificate.
        let other = https.replace("127.0.0.1", "localhost");
        let with_other = ["publish", "news", "x", "--server", &other, "--cacert", cert.path()];
        fail(&with_other, &["TLS with localhost"]);
        // A server that does not speak TLS.
        let plain = format!("https://{}", child.edge());
        fail(&["publish", "news", "x", "--server", &plain, "-k"], &["TLS with 127.0.0.1"]);
        for transport in ["websocket", "commands", "sse", "poll", "tcp"] {
            let server = if transport == "tcp" { &tls } else { &https };
            let arguments = [
                "subscribe", "news", "--transport", transport, "--count", "1", "--server", server,
                "--cacert", cert.path(),
            ];
            let printed = subscribe(&child, &arguments, || drop(succeed(&with(&["-k"]))));
            assert_eq!(printed.trim(), "x", "{transport}");
        }
        let top = ["top", "--once", "--server", &https, "--cacert", cert.path()];
        assert!(succeed(&top).contains("connections"));
    }
}
