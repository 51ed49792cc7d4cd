//! Event streams, each on a connection of its own, apart from those for requests.

use super::{ANSWER_DEADLINE, Call, Client, Failure, Retry, broken, permit, read, refusal, sse::Events, whole, within};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Most concurrent streams; further ones wait. The gateway allows many more.
pub const MAX_WATCHES: usize = 2_000;
/// Idle timeout of a stream: the gateway sends a heartbeat every 15 seconds.
const MAX_SILENCE: Duration = Duration::from_secs(40);

/// A response whose body is still to come. Dropping it closes the connection at once.
struct Stream {
    response: Response<Incoming>,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

impl Client {
    /// Reads events until `take` returns a value for one, and closes the stream then. Reopens a stream that breaks or
    /// ends before, as often as a request is retried.
    pub async fn watch<E: DeserializeOwned, T>(
        &self,
        call: &Call,
        mut take: impl FnMut(E) -> Option<T>,
    ) -> Result<T, Failure> {
        let _permit = permit(&self.watches, &self.traffic.queued_watches).await;
        let mut retry = Retry::default();
        loop {
            match self.read_events(call, &mut take).await {
                Ok(taken) => return Ok(taken),
                Err(failure) if !retry.pause(&failure, &self.stats).await => return Err(failure),
                Err(_) => {}
            }
        }
    }

    async fn read_events<E: DeserializeOwned, T>(
        &self,
        call: &Call,
        take: &mut impl FnMut(E) -> Option<T>,
    ) -> Result<T, Failure> {
        let Stream { response, _connection } = within(ANSWER_DEADLINE, self.open(call)).await??;
        if !response.status().is_success() {
            let (status, body) = within(ANSWER_DEADLINE, whole(response)).await??;
            return Err(refusal(status, &body));
        }
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Some(frame) = within(MAX_SILENCE, body.frame()).await? {
            let frame = frame.map_err(|error| broken(&error))?;
            if let Some(data) = frame.data_ref() {
                events.push(data);
            }
            while let Some(event) = events.next_event() {
                if event.is_error {
                    return Err(refusal(StatusCode::OK, &event.data));
                }
                if let Some(taken) = take(read(StatusCode::OK, &event.data)?) {
                    return Ok(taken);
                }
            }
        }
        // The gateway may be draining.
        Err(Failure::Broken("the stream ended too early".into()))
    }

    /// Sends the request on a new connection, which is reset in the end: a closed one keeps its local port for a minute
    /// (TIME_WAIT), and a crowd would run out of ports.
    async fn open(&self, call: &Call) -> Result<Stream, Failure> {
        let socket = self.connect().await.map_err(|error| broken(&error))?;
        socket.set_zero_linger().map_err(|error| broken(&error))?;
        let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(self.request_by_path(call)).await.map_err(|error| broken(&error))?;
        Ok(Stream { response, _connection: connection })
    }

    /// Returns the request in the form of a connection without a pool.
    fn request_by_path(&self, call: &Call) -> Request<Full<Bytes>> {
        let mut request = self.request(call);
        *request.uri_mut() = Uri::try_from(call.path.as_str()).expect("paths are made of ids");
        let host = HeaderValue::from_str(self.gateway.as_str()).expect("an authority is ASCII");
        request.headers_mut().insert(header::HOST, host);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::stats::Stats;
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Returns a client of a server that gives one answer a connection, and closes it.
    async fn client_of(answers: &'static [&'static str]) -> (Client, Arc<Stats>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                assert!(socket.read(&mut [0; 1_024]).await.unwrap() > 0);
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let stats = Arc::new(Stats::default());
        (Client::new(&url, 1, Arc::clone(&stats)).unwrap(), stats)
    }

    #[tokio::test]
    async fn a_stream_that_ends_too_early_is_opened_again_until_an_event_is_taken() {
        let (client, stats) = client_of(&[
            "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n",
            "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\ndata: 2\n\ndata: 3\n\n",
        ])
        .await;
        let call = Call::get("/v1/orders/ord_1:watch");
        let taken = client.watch(&call, |number: u32| (number > 1).then_some(number)).await.unwrap();
        assert_eq!((taken, stats.totals().tried_again["CONNECTION_BROKEN"]), (2, 1));
        assert_eq!(client.watches.available_permits(), MAX_WATCHES);
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_for_good_is_not_opened_again() {
        let (client, stats) = client_of(&[
            "HTTP/1.1 404 Not Found\r\n\r\n{\"reason\":\"ORDER_NOT_FOUND\",\"detail\":\"\",\"trace_id\":\"t-1\"}",
        ])
        .await;
        let call = Call::get("/v1/orders/ord_1:watch");
        let failure = client.watch(&call, Some::<u32>).await.unwrap_err();
        assert_eq!((failure.reason(), failure.trace_id()), ("ORDER_NOT_FOUND", Some("t-1")));
        assert!(stats.totals().tried_again.is_empty());
    }
}
