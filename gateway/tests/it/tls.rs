//! TLS at the gateway's port, with a certificate of the tests.

use crate::{
    front::try_build,
    raw::{Door, MAX_WAIT, closed_after},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use stampede_chassis::Workers;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kit/chassis/testdata/tls/one.cert.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kit/chassis/testdata/tls/one.key.pem");
const FLAGS: [(&str, &str); 2] = [("--tls-cert-file", CERTIFICATE), ("--tls-key-file", KEY)];

/// Opens a connection that offers these protocols.
fn connect(address: SocketAddr, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(CERTIFICATE).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(MAX_WAIT)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_offered_and_spoken() {
    let door = Door::open(&FLAGS).await;
    let address = door.address;
    let asking = tokio::task::spawn_blocking(move || {
        let mut one = connect(address, &[b"http/1.1"]);
        one.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        one.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"stampede\""), "{answer}");

        let mut two = connect(address, &[b"h2", b"http/1.1"]);
        // The preface, and empty settings.
        two.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut head = [0; 9];
        two.read_exact(&mut head).unwrap();
        assert_eq!(two.conn.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(head[3], 4, "the server sends its settings first");
    });
    asking.await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_waited_for_as_a_head_is() {
    let flags = [FLAGS[0], FLAGS[1], ("--head-timeout-ms", "300")];
    let door = Door::open(&flags).await;
    let mut silent = door.connect().await;
    assert!(closed_after(&mut silent).await < Duration::from_secs(10));
    let plain = door.ask("GET", "/").await;
    assert!(!plain.contains("HTTP/1.1"), "who speaks no TLS gets no answer in plain: {plain}");
}

#[tokio::test]
async fn files_that_do_not_fit_stop_the_start_and_name_the_flags() {
    for (certificate, key, problem) in [
        ("/no/such/file", KEY, "cannot read /no/such/file"),
        (CERTIFICATE, CERTIFICATE, "has no private key"),
        (KEY, KEY, "has no certificate"),
    ] {
        let flags = [("--tls-cert-file", certificate), ("--tls-key-file", key)];
        let Err(error) = try_build(&flags, &Workers::new()).await else { panic!("{certificate} is taken") };
        let text = format!("{error:#}");
        assert!(text.contains("--tls-cert-file and --tls-key-file") && text.contains(problem), "{text}");
    }
}
