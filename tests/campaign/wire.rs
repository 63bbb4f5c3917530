//! As much of HTTP/1.1 and of LiveKit's JSON as the backend and the fronts have to understand of what passes: where a
//! message ends, and which event it is about; and the server that both are.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Who answers requests.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The answer, byte for byte; `None` if the connection is to be closed.
    fn answer(
        &self,
        request: &[u8],
        socket: &mut TcpStream,
    ) -> impl Future<Output = Option<BytesMut>> + Send;
}

/// Serves whoever connects, until `stop`.
pub(crate) fn serve<A: Answers>(listener: TcpListener, answers: Arc<A>, stop: CancellationToken) {
    let each = stop.clone();
    let accepting = async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).ok();
            let serving = connection(socket, Arc::clone(&answers));
            tokio::spawn(each.clone().run_until_cancelled_owned(serving));
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(accepting));
}

/// Requests of one connection, until the other side ends it or one of them is left without an answer.
async fn connection<A: Answers>(mut socket: TcpStream, answers: Arc<A>) {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(length) = message_len(&buffer) {
            let request = buffer.split_to(length);
            match answers.answer(&request, &mut socket).await {
                Some(answer) if socket.write_all(&answer).await.is_ok() => {}
                Some(_) | None => return,
            }
        }
        match socket.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// The length of a whole request or answer at the beginning of `bytes`; `None` until all of it is there.
pub(crate) fn message_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    let end = head + length.expect("whoever sends a body says how long it is");
    (end <= bytes.len()).then_some(end)
}

/// Which event a body is about, as `senders` and `nodes` number them; `None` for one that was forged. protojson puts a
/// space after a colon, or none: that changes from build to build.
pub(crate) fn event_in(message: &str) -> Option<u64> {
    message.split("\"id\":").skip(1).find_map(|after| {
        let id = after.trim_start().strip_prefix("\"EV_")?;
        id.split('_').next()?.parse().ok()
    })
}
