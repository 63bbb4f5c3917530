//! Which worker a connection lives on: the one with the fewest.
//!
//! Not left to the kernel (`SO_REUSEPORT`), which draws lots by address and port: a LiveKit fleet keeps one connection for
//! each node, and two of three would often meet on one core.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::worker;

/// The workers, and how many connections each has.
pub(super) struct Spread {
    seats: Box<[Seat]>,
}

/// A worker.
struct Seat {
    handle: Handle,
    open: Arc<AtomicUsize>,
}

/// A connection's place on a worker, free again when it is dropped.
pub(super) struct Seated {
    open: Arc<AtomicUsize>,
}

impl Spread {
    /// Over the workers that there are.
    pub(super) fn new() -> Self {
        let seat = |handle: &Handle| Seat { handle: handle.clone(), open: Arc::default() };
        Self { seats: worker::crew().iter().map(seat).collect() }
    }

    /// Sends `stream` to the worker that has the fewest connections, the first of several.
    pub(super) fn place(&self, stream: TcpStream) -> (Handle, Moving, Seated) {
        let open = |seat: &&Seat| seat.open.load(Ordering::Relaxed);
        let (handle, open) = match self.seats.iter().min_by_key(open) {
            Some(seat) => (seat.handle.clone(), Arc::clone(&seat.open)),
            None => (Handle::current(), Arc::default()),
        };
        open.fetch_add(1, Ordering::Relaxed);
        let moving = Moving::to(&handle, stream);
        (handle, moving, Seated { open })
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream on its way from the worker that accepted it to the one that serves it.
pub(super) enum Moving {
    /// They are the same.
    Here(TcpStream),
    /// Known to no runtime for the moment.
    There(std::net::TcpStream),
    /// It could not leave.
    Lost(io::Error),
}

impl Moving {
    fn to(worker: &Handle, stream: TcpStream) -> Self {
        if worker.id() == Handle::current().id() {
            return Self::Here(stream);
        }
        match stream.into_std() {
            Ok(stream) => Self::There(stream),
            Err(error) => Self::Lost(error),
        }
    }

    /// To be called on the worker that it was sent to.
    pub(super) fn arrived(self) -> io::Result<TcpStream> {
        match self {
            Self::Here(stream) => Ok(stream),
            Self::There(stream) => TcpStream::from_std(stream),
            Self::Lost(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::runtime::Builder;

    #[test]
    fn the_worker_with_the_fewest_connections_gets_the_next() {
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let (first, second) = (runtime(), runtime());
        let seat = |handle: &Handle| Seat { handle: handle.clone(), open: Arc::default() };
        let spread = Spread { seats: [first.handle(), second.handle()].map(seat).into() };
        let second_id = second.handle().id();
        first.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut placed = Vec::new();
            for _ in 0..3 {
                let peer = TcpStream::connect(address).await.unwrap();
                placed.push((peer, spread.place(listener.accept().await.unwrap().0)));
            }
            let went: Vec<_> =
                placed.iter().map(|(_, (handle, ..))| handle.id() == second_id).collect();
            assert_eq!(went, [false, true, false]);
            let (mut peer, (handle, moving, seated)) = placed.remove(1);
            let serving = handle.spawn(async { moving.arrived().map(drop) });
            let running = std::thread::spawn(move || second.block_on(serving));
            let served = running.join().unwrap().unwrap();
            served.expect("it is served where it was sent");
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "and closed there");
            drop(seated);
            let _next = TcpStream::connect(address).await.unwrap();
            let (handle, ..) = spread.place(listener.accept().await.unwrap().0);
            assert_eq!(handle.id(), second_id, "the second one has none any more");
        });
    }
}
