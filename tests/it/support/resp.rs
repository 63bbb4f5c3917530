//! A server that says what a test wants: it reads commands as Redis does, and answers with bytes of the test's choice.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What to do with a command.
pub(crate) enum Answer {
    /// Send this.
    Bytes(String),
    /// Send this, and close.
    Last(String),
}

impl Answer {
    pub(crate) fn bytes(bytes: &str) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

type Script = dyn Fn(&[String]) -> Answer + Send + Sync;

/// A running one; ends when it is dropped.
pub(crate) struct Scripted {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Scripted {
    /// Answers each command, given as its words, with what `script` says.
    pub(crate) async fn start(
        script: impl Fn(&[String]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(script)));
        Self { port, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        connections.spawn(async move { drop(converse(stream, &*script).await) });
    }
}

async fn converse(stream: TcpStream, script: &Script) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let words = command(&mut stream).await?;
        match script(&words) {
            Answer::Bytes(bytes) => stream.write_all(bytes.as_bytes()).await?,
            Answer::Last(bytes) => return stream.write_all(bytes.as_bytes()).await,
        }
    }
}

async fn command(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<String>> {
    let count = number(stream).await?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let mut word = vec![0; number(stream).await? + 2];
        stream.read_exact(&mut word).await?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Ok(words)
}

/// The number behind `*` or `$`.
async fn number(stream: &mut BufReader<TcpStream>) -> std::io::Result<usize> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line[1..].trim_end().parse().unwrap())
}
