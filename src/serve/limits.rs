//! Connections: how many at a time, and how long one may take.

use super::Door;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

/// How long what is under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How often somebody is asked whether to stop.
const TICK: Duration = Duration::from_millis(50);
/// Bytes of a request's head at most.
const HEAD: usize = 32 << 10;

/// Answers on `listener` until `stop` says so; then what is under way has half a minute to end, and no new answer begins.
/// `each` is called some times a second.
pub(super) async fn serve(
    listener: TcpListener,
    app: axum::Router,
    door: &Door,
    each: impl Fn(),
    stop: impl Fn() -> bool,
) {
    let free = Arc::new(Semaphore::new(door.connections));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(door.patience).max_buf_size(HEAD);
    let mut tick = tokio::time::interval(TICK);
    let next = async || {
        let free = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, free),
                // The process has no more files for a moment, or the client has gone already.
                Err(_) => sleep(TICK).await,
            }
        }
    };
    let mut accepting = Box::pin(next());
    while !stop() {
        tokio::select! {
            _ = tick.tick() => each(),
            (stream, free) = &mut accepting => {
                accepting = Box::pin(next());
                // Tokens are to be seen one by one.
                let _ = stream.set_nodelay(true);
                let service = TowerToHyperService::new(app.clone());
                let connection = open.watch(http.serve_connection(TokioIo::new(Patient { stream, patience: door.patience, until: None }), service));
                tokio::spawn(async move {
                    // A client that goes away, or speaks no HTTP, is no matter.
                    let _ = connection.await;
                    std::mem::drop(free);
                });
            }
        }
    }
    tokio::select! {
        () = open.shutdown() => {}
        () = sleep(GRACE) => {}
    }
}

/// A connection that fails where its client does not read in time what is to be sent.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    /// When that is over.
    until: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        if poll.is_ready() {
            self.until = None;
            return poll;
        }
        let patience = self.patience;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(patience)));
        until.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
