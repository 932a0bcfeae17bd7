//! How far one read or write has got, and what each answer of the kernel means for it. No system call is made
//! here: io_uring completions and return values of `pread`/`pwrite` go through the same rules, and every rule
//! can be tested without a disk that misbehaves.

use std::io;

/// The longest single request. The kernel itself stops at 2 GiB less a page.
const MAX_REQUEST: usize = 1 << 30;

/// EINTR and EAGAIN are answered by asking again; so many in a row without a byte moved end the operation.
const MAX_RETRIES: u32 = 10_000;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

/// The next request to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Where in the buffer it begins.
    pub(super) from: usize,
    /// How many bytes.
    pub(super) len: usize,
    /// Where in the file.
    pub(super) offset: u64,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// The whole buffer has been moved.
    Finished,
    /// The rest has to be asked for.
    Again,
    /// The operation has failed.
    Failed(io::Error),
}

/// The state of one operation.
#[derive(Debug)]
pub(super) struct Progress {
    way: Way,
    offset: u64,
    len: usize,
    done: usize,
    /// Requests begin at multiples of this many bytes, because direct I/O takes no others. After an answer
    /// that ends in between, the last piece is moved once more.
    granule: usize,
    retries: u32,
}

impl Progress {
    /// An operation of `len` bytes at `offset`; fails if the file cannot reach so far.
    pub(super) fn new(way: Way, offset: u64, len: usize, granule: usize) -> io::Result<Self> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(Self { way, offset, len, done: 0, granule: granule.max(1), retries: 0 })
    }

    /// Nothing is left to move.
    pub(super) fn is_finished(&self) -> bool {
        self.done == self.len
    }

    /// The request to make now.
    pub(super) fn request(&self) -> Request {
        let from = self.done - self.done % self.granule;
        Request { from, len: (self.len - from).min(MAX_REQUEST), offset: self.offset + from as u64 }
    }

    /// Takes in the kernel's answer to [`Progress::request`].
    pub(super) fn answer(&mut self, answer: io::Result<usize>) -> Step {
        let request = self.request();
        match answer {
            Ok(moved) if moved > request.len => Step::Failed(io::Error::other(format!(
                "the kernel reports {moved} bytes moved where {} were asked for",
                request.len
            ))),
            Ok(moved) => {
                let done = request.from + moved;
                if done == self.len {
                    self.done = done;
                    Step::Finished
                } else if done <= self.done {
                    Step::Failed(self.standstill())
                } else {
                    self.done = done;
                    self.retries = 0;
                    Step::Again
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) if self.retries < MAX_RETRIES => {
                    self.retries += 1;
                    Step::Again
                }
                _ => Step::Failed(error),
            },
        }
    }

    /// The error of an answer that moved nothing new.
    fn standstill(&self) -> io::Error {
        match self.way {
            Way::Read => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends after {} of {} bytes", self.done, self.len),
            ),
            Way::Write => io::Error::new(
                io::ErrorKind::WriteZero,
                format!("the kernel takes no more after {} of {} bytes", self.done, self.len),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(code: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(code))
    }

    fn begin(way: Way, len: usize) -> Progress {
        Progress::new(way, 8192, len, 512).unwrap()
    }

    #[test]
    fn a_whole_answer_finishes() {
        for way in [Way::Read, Way::Write] {
            let mut p = begin(way, 4096);
            assert_eq!(p.request(), Request { from: 0, len: 4096, offset: 8192 });
            assert!(matches!(p.answer(Ok(4096)), Step::Finished));
            assert!(p.is_finished());
        }
        assert!(begin(Way::Read, 0).is_finished());
    }

    #[test]
    fn short_answers_are_continued_from_the_last_granule() {
        for way in [Way::Read, Way::Write] {
            let mut p = begin(way, 4096);
            assert!(matches!(p.answer(Ok(1024)), Step::Again));
            assert_eq!(p.request(), Request { from: 1024, len: 3072, offset: 9216 });
            assert!(matches!(p.answer(Ok(1000)), Step::Again));
            assert_eq!(p.request(), Request { from: 1536, len: 2560, offset: 9728 });
            assert!(matches!(p.answer(Ok(2560)), Step::Finished));
        }
    }

    #[test]
    fn a_read_past_the_end_is_an_unexpected_end() {
        let mut p = begin(Way::Read, 4096);
        assert!(matches!(p.answer(Ok(700)), Step::Again));
        assert_eq!(p.request().from, 512);
        let Step::Failed(error) = p.answer(Ok(188)) else { panic!("no progress must end the read") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let Step::Failed(error) = begin(Way::Read, 4096).answer(Ok(0)) else { panic!("end of file") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_write_of_nothing_is_an_error() {
        let Step::Failed(error) = begin(Way::Write, 4096).answer(Ok(0)) else { panic!("zero-byte write") };
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn interruptions_are_retried_and_not_for_ever() {
        let mut p = begin(Way::Write, 4096);
        for code in [libc::EINTR, libc::EAGAIN] {
            assert!(matches!(p.answer(errno(code)), Step::Again));
            assert_eq!(p.request().from, 0);
        }
        assert!(matches!(p.answer(Ok(512)), Step::Again));
        for _ in 0..MAX_RETRIES {
            assert!(matches!(p.answer(errno(libc::EAGAIN)), Step::Again));
        }
        let Step::Failed(error) = p.answer(errno(libc::EAGAIN)) else { panic!("must end") };
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    }

    #[test]
    fn other_errors_and_impossible_answers_fail_at_once() {
        for code in [libc::EIO, libc::ECANCELED, libc::ENOSPC, libc::EINVAL] {
            let Step::Failed(error) = begin(Way::Write, 4096).answer(errno(code)) else {
                panic!("errno {code}")
            };
            assert_eq!(error.raw_os_error(), Some(code));
        }
        assert!(matches!(begin(Way::Read, 4096).answer(Ok(4097)), Step::Failed(_)));
    }

    #[test]
    fn places_beyond_any_file_are_refused() {
        assert!(Progress::new(Way::Read, u64::MAX, 1, 512).is_err());
        assert!(Progress::new(Way::Read, i64::MAX as u64, 1, 512).is_err());
        assert!(Progress::new(Way::Write, 0, 1 << 40, 512).unwrap().request().len == MAX_REQUEST);
    }
}
