//! Fuzz targets of the log: any bytes as the header of a segment, and any bytes as the files of a log.

use std::path::Path;
use std::sync::Arc;

use bedstone_io::fuzz::{Input, fitted};
use bedstone_io::sim::SimDisk;
use bedstone_io::{Disk, crc32c};
use zerocopy::{FromBytes, IntoBytes};

use crate::record::{RECORD_HEADER_BYTES, RecordHeader, crc_seed, padding, record_bytes};
use crate::segment::{
    CHECKED_BYTES, SEGMENT_HEADER_BYTES, encode_header, parse_header, segment_path, spare_path,
    unfinished_path,
};
use crate::{Background, LogReader, Lsn, Wal, WalConfig, WalError, classify_end, damage};

const DIR: &str = "/db/redo";
const ID: [u8; 16] = *b"0123456789abcdef";
/// The opening that opens the log; records of any opening may lie there.
const OPENING: u32 = 1000;
/// Most bytes of log that the segments of an input hold together.
const LOG_BYTES_MAX: u64 = 256 << 10;

/// One segment header. Input: 1 if the checksum is to be made right, then the block, filled up with zeros. What is
/// taken for a header is, encoded again, the same block.
pub fn segment_header(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 == 1;
    if !mend {
        let _ = parse_header(input.rest());
    }
    let mut block = fitted(input.rest(), SEGMENT_HEADER_BYTES as usize);
    if mend {
        let crc = crc32c(0, &block[..CHECKED_BYTES]);
        block[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(parsed) = parse_header(&block) {
        let again = encode_header(parsed.database_id, parsed.opening, parsed.start, parsed.bytes);
        assert!(again == block, "a header that no writer writes was taken for one");
        assert!(parsed.start.checked_add(parsed.bytes).is_some());
    }
}

/// Makes the checksums of the records right that lie in a stretch of log from its first byte on: of the header, where
/// the length is one that a record there may have, and of the payload. `lsn` is the position of the first byte. Gives
/// up at the first place where no record can be.
pub fn mend_records(log: &mut [u8], lsn: u64, database_id: &[u8; 16]) {
    let seed = crc_seed(database_id);
    let mut at = 0;
    while let Some(header) = log.get(at..at + RECORD_HEADER_BYTES) {
        let Ok(mut header) = RecordHeader::read_from_bytes(header) else { return };
        let len = header.len.get() as usize;
        let body = at + RECORD_HEADER_BYTES;
        if header.is_zero() || header.lsn.get() != lsn + at as u64 || len > log.len() {
            return;
        }
        let Some(payload) = log.get(body..body + len + padding(len)) else { return };
        header.payload_crc.set(crc32c(0, payload));
        header.crc.set(header.expected_crc(seed));
        log[at..body].copy_from_slice(header.as_bytes());
        at = body + len + padding(len);
    }
}

/// Records as the input has them: mostly whole ones with changed fields, and now and then any bytes.
fn stretch(input: &mut Input<'_>) -> Vec<u8> {
    let mut log = Vec::new();
    let mut opening = 1;
    let count = input.u8() % 24;
    for _ in 0..count {
        let flags = input.u8();
        if flags & 0x40 != 0 {
            let len = usize::from(input.u8()) * 8;
            log.extend_from_slice(&fitted(input.bytes(len), len));
            continue;
        }
        // Long payloads are of one byte, so that a short input reaches over segments.
        let len = usize::from(input.u16());
        let shown = input.bytes(len.min(64));
        let mut payload = fitted(shown, len);
        payload.extend_from_slice(&[0; 8][..padding(len)]);
        opening += u32::from(flags & 1);
        let lsn = if flags & 2 == 0 { log.len() as u64 } else { input.u64() };
        let durable = if flags & 4 == 0 { 0 } else { input.u64() };
        let kind = flags >> 3 & 7;
        let payload_crc = crc32c(0, &payload);
        let len = if flags & 0x80 == 0 { len as u32 } else { input.u32() };
        let opening = if flags & 0x80 == 0 { opening } else { input.u32() };
        let mut header =
            RecordHeader::new(crc_seed(&ID), Lsn(lsn), Lsn(durable), opening, kind, len, payload_crc);
        if flags & 0x80 != 0 {
            header.reserved[0] = input.u8();
            header.crc.set(header.expected_crc(crc_seed(&ID)));
        }
        log.extend_from_slice(header.as_bytes());
        log.extend_from_slice(&payload);
    }
    log
}

/// The files of a log. Input: a stretch of log, then how it is divided among files, and what is done to those.
///
/// Reading and judging the end must give an answer. Where the answer is that the log may be opened, it must open, and
/// then have the records that were read, and behind them one that is appended.
pub fn log_directory(data: &[u8]) {
    let mut input = Input::new(data);
    let log = stretch(&mut input);
    let disk = SimDisk::new(1);
    let (mut start, mut total) = (0, 0);
    let count = 1 + input.u8() % 5;
    for _ in 0..count {
        let flags = input.u8();
        let bytes = u64::from(1 + input.u8() % 20) * SEGMENT_HEADER_BYTES;
        total += bytes;
        if total > LOG_BYTES_MAX {
            break;
        }
        let header = if flags & 1 == 0 {
            encode_header(ID, u32::from(flags >> 6), start, bytes)
        } else {
            encode_header(if flags & 2 == 0 { ID } else { input.id() }, input.u32(), input.u64(), input.u64())
        };
        let from = (start as usize).min(log.len());
        let till = ((start + bytes) as usize).min(log.len());
        let mut file = header;
        file.extend_from_slice(&fitted(&log[from..till], bytes as usize));
        if flags & 4 != 0 {
            let cut = usize::from(input.u16());
            file.truncate(cut * 8);
        }
        if flags & 8 != 0 && !file.is_empty() {
            let at = usize::from(input.u16()) * 8 % file.len();
            let bytes = input.bytes(8);
            let end = (at + bytes.len()).min(file.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
        let name = match flags >> 4 & 3 {
            0 | 1 => segment_path(Path::new(DIR), start),
            2 => spare_path(Path::new(DIR), start),
            _ => unfinished_path(Path::new(DIR), u64::from(input.u8()) * SEGMENT_HEADER_BYTES),
        };
        disk.copy_in(&name, &file).expect("the simulated disk has room");
        start += bytes;
    }
    let (from, required) = (u64::from(input.u8()), u64::from(input.u16()));
    let disk: Arc<dyn Disk> = disk;
    // Errors are answers too. Those that say that this crate is wrong are not.
    if let Err(error @ WalError::Internal { .. }) = open(&disk, Lsn(from * 8), Lsn(required)) {
        panic!("{error}");
    }
}

type Seen = (Lsn, Lsn, u8, Vec<u8>);

fn read(disk: &Arc<dyn Disk>, from: Lsn) -> Result<(Vec<Seen>, LogReader), WalError> {
    let mut reader = LogReader::open(disk.clone(), Path::new(DIR), ID, from)?;
    let mut records = Vec::new();
    let mut position = from;
    while let Some(record) = reader.next()? {
        assert_eq!(record.lsn, position, "records follow each other");
        assert_eq!(record.end, record.lsn.plus(record_bytes(record.payload.len())));
        position = record.end;
        records.push((record.lsn, record.end, record.kind, record.payload.to_vec()));
    }
    let end = reader.end().expect("the end was reached");
    assert_eq!(end.lsn, position);
    Ok((records, reader))
}

fn open(disk: &Arc<dyn Disk>, from: Lsn, required: Lsn) -> Result<(), WalError> {
    let (before, reader) = read(disk, from)?;
    let state = classify_end(&reader, required)?;
    if let damage::EndState::Damaged { file, offset, .. } = &state {
        let len = disk.open_log(file, bedstone_io::OpenMode::Read)?.len()?;
        assert!(*offset <= len.max(SEGMENT_HEADER_BYTES) + LOG_BYTES_MAX, "damage at {offset} of {len}");
    }
    state.into_result()?;
    let end = reader.end().expect("the end was reached");
    let config = WalConfig {
        segment_bytes: WalConfig::MIN_SEGMENT_BYTES,
        buffer_bytes: WalConfig::MIN_BUFFER_BYTES,
        background: Background::Manual,
        ..WalConfig::new(DIR, ID, OPENING)
    };
    let wal = Wal::open(disk.clone(), config, end)?;
    let mut credit = wal.reserve(5, 1)?;
    let appended = wal.append(&mut credit, 9, &[b"after"], &mut |_| ())?;
    wal.wait(appended.end, crate::Durability::Sync)?;
    drop(credit);
    drop(wal);
    let (after, reader) = read(disk, from)?;
    let (last, rest) = after.split_last().expect("one record was appended");
    assert!(rest == before, "a log that was opened has other records than before");
    assert_eq!(last, &(end.lsn, appended.end, 9, b"after".to_vec()));
    classify_end(&reader, appended.end)?.into_result()
}
