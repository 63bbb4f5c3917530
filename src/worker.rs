//! The threads that do the work: one for each core, each with a runtime of its own.
//!
//! What belongs to one connection stays on one worker, from its handshake to its forwards: no event waits for another
//! thread to wake, and what many events of one worker write is written together. What workers would contend for, such
//! as idle connections, each has for itself, in a [`PerWorker`]. Everything is shared safely nevertheless: a thread that
//! is no worker (a test's runtime) takes the first one's place.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// How many tasks a busy worker runs before it looks at its sockets and timers: a millisecond's work. tokio's own 61 makes
/// smaller batches of what is read and written together.
const TASKS_PER_LOOK: u32 = 256;

thread_local! {
    /// Which worker this thread is.
    static INDEX: Cell<usize> = const { Cell::new(0) };
    /// All of them, known to each.
    static CREW: RefCell<Option<Arc<[Handle]>>> = const { RefCell::new(None) };
}

/// Runs `future` to its end on this thread, with a worker for each core, this thread the first of them. What the others
/// are doing then is dropped. Each calls `before_park` when it is about to wait for work.
///
/// # Errors
/// A runtime or a thread that cannot be made.
pub fn run<F: Future>(before_park: fn(), future: F) -> io::Result<F::Output> {
    let first = runtime(before_park)?;
    let count = thread::available_parallelism().map_or(1, usize::from);
    let others: Vec<Runtime> =
        (1..count).map(|_| runtime(before_park)).collect::<io::Result<_>>()?;
    let handles = std::iter::once(&first).chain(&others).map(|runtime| runtime.handle().clone());
    let crew: Arc<[Handle]> = handles.collect();
    let end = CancellationToken::new();
    let threads = others
        .into_iter()
        .zip(1..)
        .map(|(runtime, index)| spawn(runtime, index, Arc::clone(&crew), end.clone()));
    let threads: io::Result<Vec<_>> = threads.collect();
    let outcome = threads.map(|threads| {
        take_seat(0, Some(crew));
        (first.block_on(future), threads)
    });
    take_seat(0, None);
    end.cancel();
    let (output, threads) = outcome?;
    drop(first);
    for thread in threads {
        // A worker that panicked has told so.
        drop(thread.join());
    }
    Ok(output)
}

fn spawn(
    runtime: Runtime,
    index: usize,
    crew: Arc<[Handle]>,
    end: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        take_seat(index, Some(crew));
        runtime.block_on(end.cancelled());
    })
}

fn runtime(before_park: fn()) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_LOOK)
        .on_thread_park(before_park)
        .build()
}

fn take_seat(index: usize, crew: Option<Arc<[Handle]>>) {
    INDEX.set(index);
    CREW.set(crew);
}

/// The workers' runtimes, the first one's first; the current one's alone on a thread that is no worker.
///
/// # Panics
/// Outside of any runtime.
pub fn crew() -> Arc<[Handle]> {
    CREW.with_borrow(Clone::clone).unwrap_or_else(|| Arc::new([Handle::current()]))
}

/// Which of [`crew`] this thread is.
pub fn index() -> usize {
    INDEX.get()
}

/// A value for each worker, as many as there are where it is made.
#[derive(Debug)]
pub struct PerWorker<T> {
    first: T,
    others: Box<[T]>,
}

impl<T> PerWorker<T> {
    /// Makes them all.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        let count = CREW.with_borrow(|crew| crew.as_ref().map_or(1, |crew| crew.len()));
        Self { first: make(), others: (1..count).map(|_| make()).collect() }
    }

    /// This worker's.
    pub fn mine(&self) -> &T {
        index().checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own() {
        let mine = async |numbers: Arc<PerWorker<usize>>| (*numbers.mine(), index());
        let all = async {
            let mut numbers = 1..;
            let numbers = Arc::new(PerWorker::new(|| numbers.next().unwrap()));
            let mut seen = Vec::new();
            for worker in crew().iter() {
                seen.push(worker.spawn(mine(Arc::clone(&numbers))).await.unwrap());
            }
            seen
        };
        let seen = run(|| {}, all).unwrap();
        let count = thread::available_parallelism().unwrap().get();
        assert_eq!(seen, (0..count).map(|index| (index + 1, index)).collect::<Vec<_>>());
        assert_eq!(PerWorker::<u8>::default().iter().count(), 1, "the crew is gone");
    }

    #[test]
    fn a_thread_that_is_no_worker_takes_the_first_place() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let one = runtime.block_on(async { crew().len() });
        assert_eq!((one, index()), (1, 0));
    }
}
