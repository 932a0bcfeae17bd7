//! One read or write with the memory it borrows, and the plain way to carry it out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::progress::{Progress, Request, Step, Way};

/// The borrowed memory of a transfer.
#[derive(Debug)]
pub(super) enum Memory<'a> {
    /// Filled from the file.
    Read(&'a mut [u8]),
    /// Written to the file.
    Write(&'a [u8]),
}

/// One read or write on its way.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) memory: Memory<'a>,
    /// `None` once the result stands.
    progress: Option<Progress>,
    result: io::Result<()>,
}

impl<'a> Transfer<'a> {
    /// A transfer at `offset` of the file, whose requests begin at multiples of `granule`.
    pub(super) fn new(memory: Memory<'a>, offset: u64, granule: usize) -> Self {
        let (way, len) = match &memory {
            Memory::Read(bytes) => (Way::Read, bytes.len()),
            Memory::Write(bytes) => (Way::Write, bytes.len()),
        };
        match Progress::new(way, offset, len, granule) {
            Ok(progress) if progress.is_finished() => Self { memory, progress: None, result: Ok(()) },
            Ok(progress) => Self { memory, progress: Some(progress), result: Ok(()) },
            Err(error) => Self { memory, progress: None, result: Err(error) },
        }
    }

    /// A transfer that has failed before it began.
    pub(super) fn failed(error: io::Error) -> Self {
        Self { memory: Memory::Write(&[]), progress: None, result: Err(error) }
    }

    /// The next request, or `None` once the result stands.
    pub(super) fn request(&self) -> Option<Request> {
        self.progress.as_ref().map(Progress::request)
    }

    /// Takes in the answer to [`Transfer::request`]; afterwards either there is a next request or the result
    /// stands.
    pub(super) fn answer(&mut self, answer: io::Result<usize>) {
        let Some(progress) = &mut self.progress else { return };
        match progress.answer(answer) {
            Step::Again => {}
            Step::Finished => self.progress = None,
            Step::Failed(error) => {
                self.progress = None;
                self.result = Err(error);
            }
        }
    }

    /// The result; that of a transfer with requests left is `Ok` and says nothing.
    pub(super) fn into_result(self) -> io::Result<()> {
        self.result
    }

    /// Carries out what is left by `pread` and `pwrite`.
    pub(super) fn run_blocking(&mut self, file: &File) {
        while let Some(Request { from, len, offset }) = self.request() {
            let answer = match &mut self.memory {
                Memory::Read(bytes) => file.read_at(&mut bytes[from..from + len], offset),
                Memory::Write(bytes) => file.write_at(&bytes[from..from + len], offset),
            };
            if answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                std::thread::yield_now();
            }
            self.answer(answer);
        }
    }
}

/// Fills `bytes` from `offset` by `pread`.
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64, granule: usize) -> io::Result<()> {
    let mut transfer = Transfer::new(Memory::Read(bytes), offset, granule);
    transfer.run_blocking(file);
    transfer.into_result()
}

/// Writes all of `bytes` at `offset` by `pwrite`.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64, granule: usize) -> io::Result<()> {
    let mut transfer = Transfer::new(Memory::Write(bytes), offset, granule);
    transfer.run_blocking(file);
    transfer.into_result()
}
