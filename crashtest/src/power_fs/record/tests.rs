//! The invariants of the module above, each by a record that would show it broken, and all of them on random records
//! against a second, slower judge.

use super::*;

const LEN: u64 = 1 << 20;
const UNIT: usize = 512;

fn record() -> Record {
    Record::new(Image::new(LEN))
}

/// A write that comes and is answered at once.
fn write(record: &mut Record, offset: u64, byte: u8, len: usize) {
    let number = record.write_comes(offset, &vec![byte; len]);
    record.write_answered(number);
}

fn flush(record: &mut Record) {
    let number = record.flush_comes();
    record.flush_answered(number);
}

fn crash(history: &History, position: u64, fate: Fate, seed: u64) -> Crashed {
    history.crash(position, fate, UNIT, 0, &mut Rng::new(seed))
}

fn byte(image: &Image, offset: u64) -> u8 {
    let mut byte = [0];
    image.read(offset, &mut byte);
    byte[0]
}

#[test]
fn a_flush_covers_what_was_answered_before_it_came_and_nothing_else() {
    let mut record = record();
    write(&mut record, 0, 1, 4096);
    let late = record.write_comes(4096, &[2; 4096]);
    let asked = record.flush_comes();
    record.write_answered(late);
    write(&mut record, 8192, 3, 4096);
    record.flush_answered(asked);
    let (answered, history) = (record.position(), record.end());
    for position in 0..=answered {
        let image = crash(&history, position, Fate::Dropped, 1).image;
        // Only with the flush's own answer is anything safe; the two that were not answered when it came never are.
        assert_eq!(byte(&image, 0), u8::from(position == answered), "{position}");
        assert_eq!((byte(&image, 4096), byte(&image, 8192)), (0, 0), "{position}");
    }
    let kept = crash(&history, answered, Fate::Kept, 1);
    assert_eq!([0, 4096, 8192].map(|offset| byte(&kept.image, offset)), [1, 2, 3]);
    assert_eq!(kept.facts, Facts { flushed: 1, kept: 2, dropped: 0, torn: 0 });
    // What comes after the cut is not there, whatever the fate.
    let before = crash(&history, 3, Fate::Kept, 1);
    assert_eq!([0, 4096, 8192].map(|offset| byte(&before.image, offset)), [1, 2, 0]);
}

#[test]
fn later_writes_lie_above_earlier_ones() {
    let mut record = record();
    write(&mut record, 0, 1, 4096);
    flush(&mut record);
    write(&mut record, 0, 2, 4096);
    write(&mut record, 0, 3, 4096);
    flush(&mut record);
    write(&mut record, 512, 4, 512);
    let history = record.end();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let image = crash(&history, 9, Fate::Some(4), seed).image;
        seen.insert(byte(&image, 0));
        let whole = crash(&history, history.end(), Fate::Some(4), seed).image;
        assert_eq!(byte(&whole, 0), 3);
        assert!(matches!(byte(&whole, 512), 3 | 4));
    }
    // Before the second flush is answered, any of the three may be on top.
    assert_eq!(seen, [1, 2, 3].into());
}

#[test]
fn a_torn_write_is_there_in_whole_units() {
    let mut record = record();
    write(&mut record, 0, 1, 4096);
    flush(&mut record);
    write(&mut record, 0, 2, 4096);
    write(&mut record, 8192, 2, 512);
    let history = record.end();
    let mut patterns = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let torn = crash(&history, history.end(), Fate::Torn, seed);
        let mut bytes = [0; 4096];
        torn.image.read(0, &mut bytes);
        assert!(bytes.chunks(UNIT).all(|unit| unit.iter().all(|byte| *byte == unit[0])));
        let pattern: Vec<u8> = bytes.chunks(UNIT).map(|unit| unit[0]).collect();
        if torn.facts.torn == 0 {
            assert!(pattern.iter().all(|byte| *byte == pattern[0]), "{pattern:?}");
        }
        patterns.insert(pattern);
        let whole = history.crash(history.end(), Fate::Torn, UNIT, 4096, &mut Rng::new(seed));
        assert_eq!(whole.facts.torn, 0, "the first block is never torn, one unit cannot be");
    }
    assert!(patterns.len() > 20, "{}", patterns.len());
}

#[test]
fn prepared_images_change_nothing() {
    for seed in 0..20 {
        let mut rng = Rng::of(&[seed, 9]);
        let mut record = record();
        let (mut open, mut flushing) = (Vec::new(), Vec::new());
        for step in 0..3000 {
            match rng.below(20) {
                0 => flushing.push(record.flush_comes()),
                1 | 2 if !flushing.is_empty() => {
                    record.flush_answered(flushing.swap_remove(rng.index(flushing.len())));
                }
                3..=10 if !open.is_empty() => {
                    record.write_answered(open.swap_remove(rng.index(open.len())));
                }
                _ => {
                    let offset = rng.below(LEN / 512 - 16) * 512;
                    let len = 512 * (1 + rng.index(16));
                    open.push(record.write_comes(offset, &vec![step as u8 | 1; len]));
                }
            }
        }
        let history = record.end();
        for _ in 0..20 {
            let position = history.draw(&mut rng);
            for (fate, all) in [(Fate::Dropped, false), (Fate::Kept, true)] {
                let mut expected = Image::new(LEN);
                for write in history.writes.iter().filter(|write| write.came < position) {
                    let durable = history
                        .flushes
                        .iter()
                        .any(|flush| flush.answered < position && write.answered < flush.came);
                    if durable || all {
                        expected.write(write.offset, &write.bytes);
                    }
                }
                let found = crash(&history, position, fate, seed).image;
                let (mut left, mut right) = (vec![0; LEN as usize], vec![0; LEN as usize]);
                expected.read(0, &mut left);
                found.read(0, &mut right);
                assert!(left == right, "seed {seed}, position {position}, {fate:?}");
            }
        }
    }
}
