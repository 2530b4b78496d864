//! The chain under every kind of damage, and what several writers make of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::key::Key;
use super::store::{Store, segment_path};
use super::*;

const DAY_US: i64 = 86_400_000_000;
const NOW_US: i64 = 1_700_000_000_000_000;

fn event(at: usize) -> Event {
    Event {
        id: format!("event {at}"),
        statement: Some("SELECT ?".repeat(20)),
        tables: vec!["mutable.public.t".into()],
        outcome: OK.into(),
        ..Event::default()
    }
}

fn config(segment_bytes: u64) -> AuditConfig {
    AuditConfig {
        segment_bytes,
        ..AuditConfig::default()
    }
}

fn add(store: &mut Store, count: usize, now_us: i64) {
    for at in 0..count {
        store.append(&[&event(at)], now_us).unwrap();
    }
}

/// A trail of three segments and more, with a checkpoint in the middle and `unsigned`
/// records after the last one.
fn trail(directory: &Path, unsigned: usize) {
    trail_of(directory, 4 << 10, unsigned);
}

fn trail_of(directory: &Path, segment_bytes: u64, unsigned: usize) {
    let mut store = Store::open(directory, &config(segment_bytes), NOW_US).unwrap();
    add(&mut store, 10, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    add(&mut store, 20, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    add(&mut store, unsigned, NOW_US);
}

fn all(mut events: Events) -> Vec<Event> {
    let next = || events.next(100).unwrap();
    std::iter::from_fn(next).flatten().collect()
}

/// What is wrong with the trail, one fault a line.
fn faults(directory: &Path) -> String {
    let report = verify(directory, None, None).unwrap();
    let faults: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    faults.join("\n")
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn rewrite(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn last_segment(directory: &Path) -> PathBuf {
    let last = store::segments(directory).unwrap().pop_last().unwrap();
    segment_path(directory, last)
}

#[test]
fn a_trail_that_nobody_touched_holds() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path(), 3);
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert!(report.segments >= 3, "{report:?}");
    assert_eq!((report.events, report.unsigned), (33, 3));
    assert_eq!((report.torn_bytes, report.dropped), (0, 0));
    let mut events = Events::of(dir.path(), Whose::Everybodys, None).unwrap();
    let mut next = || events.next(20).unwrap();
    let (first, rest) = (next().unwrap(), next().unwrap());
    assert_eq!((first.len(), rest.len(), next()), (20, 13, None));
    assert_eq!((first[0].clone(), rest[12].clone()), (event(0), event(2)));

    // It goes on where it ended.
    trail(dir.path(), 0);
    assert_eq!(faults(dir.path()), "");
}

/// Every byte of a trail that is signed to its end: whichever one is flipped, it is
/// found, and where.
#[test]
fn one_flipped_byte_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), &config(1 << 20), NOW_US).unwrap();
    add(&mut store, 2, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    add(&mut store, 1, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    for name in ["00000000.jsonl", "head"] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert_ne!(faults(dir.path()), "", "{name} {at}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(faults(dir.path()), "");
}

#[test]
fn what_was_done_to_a_record_is_told_with_its_place() {
    type Damage = fn(&mut Vec<String>);
    let cases: [(&str, Damage, &str); 6] = [
        (
            "edited",
            |lines| lines[3] = lines[3].replace("event 3", "event 4"),
            "record 3 was edited",
        ),
        (
            "removed",
            |lines| drop(lines.remove(3)),
            "record 3 is missing",
        ),
        (
            "several removed",
            |lines| drop(lines.drain(2..5)),
            "records 2 to 4 are missing",
        ),
        ("swapped", |lines| lines.swap(3, 4), "record 3"),
        (
            "put in",
            |lines| lines.insert(3, lines[2].clone()),
            "record 2 stands where record 3 belongs",
        ),
        (
            "no record any more",
            |lines| lines[3].truncate(20),
            "record 3 was edited: it is no record",
        ),
    ];
    for (name, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        trail(dir.path(), 0);
        let path = segment_path(dir.path(), 0);
        let mut all = lines(&path);
        damage(&mut all);
        rewrite(&path, &all);
        let found = faults(dir.path());
        assert!(found.contains(expected), "{name}: {found}");
        assert!(found.contains("segment 00000000"), "{name}: {found}");
    }
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    for segment in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        trail(dir.path(), 0);
        fs::remove_file(segment_path(dir.path(), segment)).unwrap();
        let found = faults(dir.path());
        let expected = match segment {
            0 => "records before the first are missing",
            _ => "missing: 00000001",
        };
        assert!(found.contains(expected), "{segment}: {found}");
    }
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path(), 0);
    fs::remove_file(last_segment(dir.path())).unwrap();
    let found = faults(dir.path());
    assert!(found.contains("missing at the end"), "{found}");
    // And nobody writes over it.
    let refused = Store::open(dir.path(), &config(4 << 10), NOW_US)
        .err()
        .unwrap();
    assert!(refused.to_string().contains("are gone"), "{refused}");
}

#[test]
fn a_tail_that_is_cut_is_missed_as_far_as_it_was_signed() {
    let dir = tempfile::tempdir().unwrap();
    trail_of(dir.path(), 1 << 20, 3);
    let kept = verify(dir.path(), None, None).unwrap().checkpoint.unwrap();
    let path = last_segment(dir.path());
    let all = lines(&path);

    // Behind the last checkpoint, where nothing holds it yet.
    rewrite(&path, &all[..all.len() - 2]);
    let report = verify(dir.path(), None, Some(kept)).unwrap();
    assert_eq!((report.faults.len(), report.unsigned), (0, 1));

    // The checkpoint too, and the record before it.
    for left in [4, 5] {
        rewrite(&path, &all[..all.len() - left]);
        let found = faults(dir.path());
        assert!(found.contains("missing at the end"), "{left}: {found}");
    }

    // With the last checkpoint put back to the one before: by itself it holds, and not
    // for one who kept the last.
    let again = tempfile::tempdir().unwrap();
    let mut store = Store::open(again.path(), &config(1 << 20), NOW_US).unwrap();
    add(&mut store, 2, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    let (head, segment) = (again.path().join("head"), segment_path(again.path(), 0));
    let earlier = (fs::read(&head).unwrap(), fs::read(&segment).unwrap());
    add(&mut store, 2, NOW_US);
    store.checkpoint(NOW_US).unwrap();
    let kept = verify(again.path(), None, None)
        .unwrap()
        .checkpoint
        .unwrap();
    fs::write(&head, earlier.0).unwrap();
    fs::write(&segment, earlier.1).unwrap();
    assert_eq!(faults(again.path()), "");
    let report = verify(again.path(), None, Some(kept)).unwrap();
    let text = report.faults[0].to_string();
    assert!(text.contains("the checkpoint that was kept"), "{text}");

    // Without it altogether.
    fs::remove_file(&head).unwrap();
    let found = faults(again.path());
    assert!(found.contains("(`head`) is missing"), "{found}");
}

#[test]
fn a_trail_that_was_written_anew_has_another_key() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path(), 0);
    let public = public_key(dir.path()).unwrap().unwrap();
    assert_eq!(
        verify(dir.path(), Some(public.clone()), None)
            .unwrap()
            .faults,
        []
    );
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    trail(dir.path(), 0);
    assert_eq!(faults(dir.path()), "");
    let report = verify(dir.path(), Some(public), None).unwrap();
    let text = report.faults[0].to_string();
    assert!(text.contains("not signed by the key"), "{text}");
    fs::remove_file(dir.path().join("key")).unwrap();
    let without = verify(dir.path(), None, None).unwrap_err();
    assert!(without.to_string().contains("--public-key"), "{without}");
}

#[test]
fn a_torn_line_is_cut_off_and_is_no_tampering() {
    let dir = tempfile::tempdir().unwrap();
    trail_of(dir.path(), 1 << 20, 2);
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 30);
    let torn = bytes.len() - bytes.iter().rposition(|byte| *byte == b'\n').unwrap() - 1;
    fs::write(&path, &bytes).unwrap();
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.torn_bytes, report.events), (torn as u64, 31));

    trail_of(dir.path(), 1 << 20, 1);
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.torn_bytes, report.events), (0, 31 + 31));

    // Another process that is killed while this one is open.
    let mut store = Store::open(dir.path(), &config(4 << 10), NOW_US).unwrap();
    add(&mut store, 1, NOW_US);
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"position\":");
    fs::write(&path, &bytes).unwrap();
    add(&mut store, 1, NOW_US);
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.torn_bytes, report.events), (0, 31 + 31 + 2));
}

#[test]
fn several_writers_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut store = Store::open(dir.path(), &config(8 << 10), NOW_US).unwrap();
                for _ in 0..20 {
                    add(&mut store, 3, NOW_US);
                    store.checkpoint(NOW_US).unwrap();
                }
            });
        }
    });
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.events, report.unsigned), (240, 0));
    assert!(report.segments > 5, "{report:?}");
}

#[test]
fn what_is_too_old_is_dropped_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let keeping = AuditConfig {
        retention_days: 30,
        ..config(4 << 10)
    };
    let mut store = Store::open(dir.path(), &keeping, NOW_US).unwrap();
    add(&mut store, 30, NOW_US);
    // Two days later another is begun.
    add(&mut store, 1, NOW_US + 2 * DAY_US);
    store.checkpoint(NOW_US + 2 * DAY_US).unwrap();
    assert!(store::segments(dir.path()).unwrap().len() > 4);
    add(&mut store, 1, NOW_US + 31 * DAY_US);
    assert_eq!(faults(dir.path()), "");
    add(&mut store, 1, NOW_US + 32 * DAY_US + DAY_US / 2);
    let after = store::segments(dir.path()).unwrap();
    assert!(after.len() < 4 && !after.contains(&0), "{after:?}");
    let report = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.faults, []);
    assert!(report.dropped >= 30 && report.events == 3, "{report:?}");

    // One more than was said to be.
    let first = *after.first().unwrap();
    fs::remove_file(segment_path(dir.path(), first)).unwrap();
    let found = faults(dir.path());
    assert!(found.contains("nothing signed says"), "{found}");
}

#[test]
fn segments_that_ended_before_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), &config(4 << 10), NOW_US).unwrap();
    for day in 0..4 {
        let now_us = NOW_US + day * DAY_US;
        for at in 0..10 {
            let event = Event {
                time: now_us,
                ..event(at)
            };
            store.append(&[&event], now_us).unwrap();
        }
    }
    let read = |since_us: i64| {
        let events = Events::of(dir.path(), Whose::Everybodys, Some(since_us));
        let events = all(events.unwrap());
        let asked = events.iter().filter(|event| event.time >= since_us).count();
        (events.len(), asked)
    };
    assert_eq!(read(0), (40, 40));
    for day in 1..4_usize {
        let (read, asked) = read(NOW_US + day as i64 * DAY_US);
        assert_eq!(asked, 40 - 10 * day);
        assert!(read < 40 - 10 * (day - 1), "{day}: {read}");
    }
}

#[test]
fn a_signature_of_another_place_is_none() {
    let dir = tempfile::tempdir().unwrap();
    trail_of(dir.path(), 1 << 20, 0);
    let key = Key::open(dir.path()).unwrap().unwrap();
    let path = segment_path(dir.path(), 0);
    let signature = key.sign_checkpoint(Place::START, NOW_US);
    let mut all = lines(&path);
    let at = all
        .iter()
        .position(|line| line.contains("checkpoint"))
        .unwrap();
    let from = all[at].find("signature\":\"").unwrap() + 12;
    all[at].replace_range(from..from + signature.len(), &signature);
    rewrite(&path, &all);
    let found = faults(dir.path());
    assert!(found.contains("is not signed by the key"), "{found}");
}

fn small(queue_max: usize, durability: AuditDurability) -> AuditConfig {
    AuditConfig {
        queue_max,
        durability,
        flush_ms: 20,
        ..AuditConfig::default()
    }
}

fn now_us() -> i64 {
    NOW_US
}

async fn ids(audit: &Audit, whose: Whose) -> Vec<Event> {
    audit.flush().await;
    all(audit.events(whose, None).unwrap())
}

#[tokio::test]
async fn requests_wait_for_room_and_no_record_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(2, AuditDurability::Batched);
    let audit = Audit::new(dir.path(), &config, now_us, str::to_owned);
    let first = audit.begin("first").await.unwrap().unwrap();
    let second = audit.begin("second").await.unwrap().unwrap();
    let mut third = Box::pin(audit.begin("third"));
    assert!(futures::poll!(third.as_mut()).is_pending());
    first.statement("SELECT 1");
    first.add_rows(3);
    assert!(first.finish(OK).is_none());
    // What comes after is too late.
    first.statement("SELECT 2");
    let third = third.await.unwrap().unwrap();
    drop((first, third));
    second.note_written();
    drop(second);
    let events = ids(&audit, Whose::Everybodys).await;
    let told: Vec<(&str, &str, i64)> = events
        .iter()
        .map(|event| (event.method.as_str(), event.outcome.as_str(), event.rows))
        .collect();
    let expected = [("first", OK, 3), ("third", CANCELLED, 0), ("second", OK, 0)];
    assert_eq!(told, expected);
    assert_eq!(events[0].statement.as_deref(), Some("SELECT 1"));

    // Many at once, through room for two.
    let many = (0..200).map(|_| async {
        let entry = audit.begin("many").await.unwrap().unwrap();
        entry.finish(OK);
    });
    futures::future::join_all(many).await;
    audit.settle(Duration::from_secs(10)).await;
    let report = verify(&directory(dir.path()), None, None).unwrap();
    assert_eq!((report.events, report.unsigned), (203, 0));
    assert_eq!(report.faults, []);
}

#[tokio::test]
async fn a_record_is_on_the_disk_before_the_answer_where_that_is_promised() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig {
        flush_ms: 60_000,
        ..small(100, AuditDurability::BeforeAnswer)
    };
    let audit = Audit::new(dir.path(), &config, now_us, str::to_owned);
    for at in 1..=10 {
        let entry = audit.begin("call").await.unwrap().unwrap();
        assert_eq!(entry.finish(OK).unwrap().await, Ok(true));
        let read = Events::of(&directory(dir.path()), Whose::Everybodys, None);
        assert_eq!(all(read.unwrap()).len(), at);
        assert!(entry.finish(OK).is_none());
    }
}

#[tokio::test]
async fn a_trail_that_cannot_be_written_refuses_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    // A file is in the way.
    let in_the_way = directory(dir.path());
    fs::write(&in_the_way, "").unwrap();
    let config = small(100, AuditDurability::BeforeAnswer);
    let audit = Audit::new(dir.path(), &config, now_us, str::to_owned);
    let refused = audit.open().unwrap_err().to_string();
    assert!(refused.contains("cannot be used"), "{refused}");
    let entry = audit.begin("first").await.unwrap().unwrap();
    assert_eq!(entry.finish(OK).unwrap().await, Ok(false));
    let refused = audit.begin("second").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    fs::remove_file(&in_the_way).unwrap();
    audit.settle(Duration::ZERO).await;
    let entry = audit.begin("third").await.unwrap().unwrap();
    assert_eq!(entry.finish(OK).unwrap().await, Ok(true));
    // The first was kept, since it was run.
    let methods: Vec<String> = ids(&audit, Whose::Everybodys)
        .await
        .into_iter()
        .map(|event| event.method)
        .collect();
    assert_eq!(methods, ["first", "third"]);
}

#[tokio::test]
async fn what_is_off_records_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig {
        enabled: false,
        ..AuditConfig::default()
    };
    let audit = Audit::new(dir.path(), &config, now_us, str::to_owned);
    audit.open().unwrap();
    assert!(audit.begin("call").await.unwrap().is_none());
    assert_eq!(ids(&audit, Whose::Everybodys).await, []);
    assert!(!directory(dir.path()).exists());
    let none = verify(&directory(dir.path()), None, None).unwrap_err();
    assert!(matches!(none, Error::NotFound(_)), "{none:?}");
}
