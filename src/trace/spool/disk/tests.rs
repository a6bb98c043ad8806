use std::io::Write;

use bytes::Bytes;

use super::*;

fn batch(number: usize) -> Batch {
    Batch::from_disk(Bytes::from(format!("[{{\"n\":{number}}}]")), 1)
}

fn open(root: &Path) -> Disk {
    Disk::open(root, 1 << 20).unwrap()
}

/// Everything that is not confirmed, oldest first.
fn contents(disk: &mut Disk) -> Vec<String> {
    disk.give_back([]);
    let texts = texts(&disk.take(usize::MAX, usize::MAX).unwrap());
    disk.give_back([]);
    texts
}

fn texts(batches: &[(Batch, Position)]) -> Vec<String> {
    batches.iter().map(|(batch, _)| String::from_utf8_lossy(&batch.json).into_owned()).collect()
}

/// All these were delivered.
fn confirm(disk: &mut Disk, batches: &[(Batch, Position)]) {
    batches.iter().for_each(|(batch, end)| disk.confirm(*end, batch.events as u64));
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("[{{\"n\":{number}}}]")).collect()
}

/// As `kill -9` leaves it: the lock goes with the process, the files stay.
fn kill(disk: Disk) -> PathBuf {
    let dir = disk.dir.clone();
    disk.lock.unlock().unwrap();
    std::mem::forget(disk);
    dir
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

fn bad_files(root: &Path) -> usize {
    fs::read_dir(root).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count()
}

#[test]
fn it_is_a_queue_and_forgets_only_what_was_confirmed() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = open(root.path());
    for number in 0..5 {
        disk.push(&batch(number)).unwrap();
    }
    let batches = disk.take(2, usize::MAX).unwrap();
    assert_eq!(texts(&batches), expected(0..2));
    assert_eq!(contents(&mut disk), expected(0..5));
    let batches = disk.take(2, usize::MAX).unwrap();
    confirm(&mut disk, &batches);
    assert_eq!((contents(&mut disk), disk.events()), (expected(2..5), 3));
    let batches = disk.take(9, 1).unwrap();
    assert_eq!(batches.len(), 1, "one at least, however small the byte limit");
    confirm(&mut disk, &batches);
    disk.push(&batch(5)).unwrap();
    let batches = disk.take(9, usize::MAX).unwrap();
    assert_eq!(batches.len(), 3);
    confirm(&mut disk, &batches);
    assert!(disk.is_empty());
    assert_eq!((disk.bytes(), disk.events()), (0, 0));
    let dir = disk.dir.clone();
    drop(disk);
    assert!(!dir.exists(), "an empty spool leaves nothing behind");
}

#[test]
fn it_spreads_over_segments_and_deletes_them_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), 4096).unwrap();
    for number in 0..100 {
        disk.push(&batch(number)).unwrap();
    }
    assert!(segment_files(&disk.dir).len() > 2);
    for number in 0..100 {
        let batches = disk.take(1, usize::MAX).unwrap();
        assert_eq!(batches[0].0.json, batch(number).json);
        confirm(&mut disk, &batches);
    }
    assert!(disk.is_empty());
    assert_eq!(segment_files(&disk.dir).len(), 0);
    assert_eq!(disk.take_losses(), Losses::default());
}

#[test]
fn at_the_cap_the_oldest_go_and_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), 2048).unwrap();
    for number in 0..1000 {
        disk.push(&batch(number)).unwrap();
        let on_disk: u64 = segment_files(&disk.dir).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert_eq!(on_disk, disk.bytes());
        assert!(on_disk <= 2048 + 64, "{on_disk}");
    }
    let left = contents(&mut disk);
    assert_eq!(left, expected(1000 - left.len()..1000));
    assert_eq!(disk.take_losses(), Losses { events: 1000 - left.len() as u64, damaged_files: 0 });
}

#[test]
fn several_deliveries_are_in_flight_and_a_failure_gives_all_back_in_order() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), 1024).unwrap(); // a segment takes a few of them
    for number in 0..20 {
        disk.push(&batch(number)).unwrap();
    }
    assert!(segment_files(&disk.dir).len() > 2);
    let first = disk.take(3, usize::MAX).unwrap();
    let second = disk.take(9, usize::MAX).unwrap();
    assert_eq!([texts(&first), texts(&second)].concat(), expected(0..12));
    confirm(&mut disk, &first);
    let third = disk.take(99, usize::MAX).unwrap();
    assert_eq!(texts(&third), expected(12..20));
    assert!(!disk.has_waiting() && disk.take(1, 1).unwrap().is_empty() && !disk.is_empty());
    // written because it got old in flight, and what waits goes behind it
    disk.push_in_flight(&batch(20)).unwrap();
    disk.push(&batch(21)).unwrap();
    let fourth = disk.take(99, usize::MAX).unwrap();
    assert_eq!(texts(&fourth), expected(21..22));
    disk.give_back([&second, &third, &fourth].into_iter().flatten().map(|(batch, end)| (*end, batch.events as u64)));
    assert_eq!((disk.events(), contents(&mut disk)), (19, expected(3..22)));
    assert_eq!(disk.take_losses(), Losses::default());
}

/// Fills a small queue, takes some, and lets the cap take their segments.
fn overrun() -> (tempfile::TempDir, Disk, Vec<(Batch, Position)>) {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), 2048).unwrap();
    for number in 0..50 {
        disk.push(&batch(number)).unwrap();
    }
    let batches = disk.take(15, usize::MAX).unwrap();
    for number in 50..500 {
        disk.push(&batch(number)).unwrap();
    }
    (root, disk, batches)
}

#[test]
fn what_is_confirmed_after_the_cap_took_it_is_delivered_and_not_lost() {
    let (_root, mut disk, batches) = overrun();
    let before = contents(&mut disk);
    confirm(&mut disk, &batches);
    assert_eq!(contents(&mut disk), before);
    assert_eq!(disk.events(), before.len() as u64);
    assert_eq!(disk.take_losses().events, 500 - 15 - before.len() as u64);
}

#[test]
fn what_fails_after_the_cap_took_it_is_lost_once() {
    let (_root, mut disk, batches) = overrun();
    let losses = disk.take_losses().events;
    disk.give_back(batches.iter().map(|(batch, end)| (*end, batch.events as u64)));
    assert_eq!(disk.take_losses().events, 15);
    let left = contents(&mut disk);
    assert_eq!(left, expected(500 - left.len()..500));
    assert_eq!(losses + 15 + left.len() as u64, 500);
}

#[test]
fn a_delivery_that_the_cap_took_half_of_counts_right_either_way() {
    for confirmed in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(root.path(), 2048).unwrap();
        let mut number = 0;
        while segment_files(&disk.dir).len() < 4 {
            disk.push(&batch(number)).unwrap();
            number += 1;
        }
        let batches = disk.take(number, usize::MAX).unwrap(); // over all segments
        while segment_files(&disk.dir)[0].ends_with("0000000000000001.seg") {
            disk.push(&batch(number)).unwrap();
            number += 1;
        }
        if confirmed {
            confirm(&mut disk, &batches);
            assert_eq!(disk.take_losses(), Losses::default(), "all of it was delivered");
            assert_eq!(contents(&mut disk), expected(batches.len()..number));
        } else {
            disk.give_back(batches.iter().map(|(batch, end)| (*end, batch.events as u64)));
            let left = contents(&mut disk);
            assert_eq!(left, expected(number - left.len()..number));
            assert_eq!(disk.take_losses().events, (number - left.len()) as u64);
        }
        assert_eq!(disk.events(), contents(&mut disk).len() as u64);
    }
}

#[test]
fn the_next_process_adopts_what_a_killed_one_left() {
    let root = tempfile::tempdir().unwrap();
    let mut first = open(root.path());
    for number in 0..3 {
        first.push(&batch(number)).unwrap();
    }
    let mut beside = open(root.path());
    assert!(beside.is_empty(), "a living process keeps its own");
    let dir = kill(first);
    let mut second = open(root.path());
    assert_eq!(contents(&mut second), expected(0..3));
    assert!(!dir.exists());
    second.push(&batch(3)).unwrap();
    assert_eq!((contents(&mut second), second.events()), (expected(0..4), 4));
    assert!(contents(&mut beside).is_empty());
}

#[test]
fn a_torn_tail_is_cut_off_at_every_byte() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = open(root.path());
    for number in 0..3 {
        disk.push(&batch(number)).unwrap();
    }
    let whole = fs::read(&segment_files(&disk.dir)[0]).unwrap();
    drop(kill(disk));
    for length in 0..whole.len() {
        let root = tempfile::tempdir().unwrap();
        let dir = kill(open(root.path()));
        fs::write(dir.join("0000000000000001.seg"), &whole[..length]).unwrap();
        let mut disk = open(root.path());
        let record = (whole.len() - 8) / 3;
        let records = length.saturating_sub(8) / record;
        assert_eq!(contents(&mut disk), expected(0..records), "{length}");
        assert_eq!((disk.take_losses(), bad_files(root.path())), (Losses::default(), 0), "{length}");
    }
}

#[test]
fn damage_is_set_aside_and_the_rest_delivered() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = open(root.path());
    for number in 0..3 {
        disk.push(&batch(number)).unwrap();
    }
    let file = segment_files(&disk.dir)[0].clone();
    let dir = kill(disk);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    fs::write(dir.join("0000000000000002.seg"), b"this is no segment").unwrap();
    fs::write(dir.join("notes.txt"), b"foreign").unwrap();
    let mut disk = open(root.path());
    assert_eq!(contents(&mut disk), expected(0..2));
    assert_eq!(disk.take_losses().damaged_files, 2);
    assert_eq!(bad_files(root.path()), 2);
}

#[test]
fn a_segment_damaged_under_a_running_process_is_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), 1024).unwrap();
    for number in 0..12 {
        disk.push(&batch(number)).unwrap();
    }
    let files = segment_files(&disk.dir);
    assert!(files.len() > 1);
    let mut file = fs::File::options().write(true).open(&files[0]).unwrap();
    file.write_all(&[0xff; 40]).unwrap();
    let left = contents(&mut disk);
    assert_eq!(left, expected(12 - left.len()..12));
    assert_eq!(disk.take_losses(), Losses { events: 12 - left.len() as u64, damaged_files: 1 });
}

#[test]
fn a_segment_cut_short_or_deleted_under_a_running_process_does_not_hold_up_the_queue() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = open(root.path());
    disk.push(&batch(0)).unwrap();
    fs::File::options().write(true).open(&segment_files(&disk.dir)[0]).unwrap().set_len(8).unwrap();
    assert!(contents(&mut disk).is_empty());
    assert!(disk.is_empty());
    assert_eq!(disk.take_losses(), Losses { events: 1, damaged_files: 0 });
    disk.push(&batch(1)).unwrap();
    fs::remove_file(&segment_files(&disk.dir)[0]).unwrap();
    disk.push(&batch(2)).unwrap(); // into the deleted file
    assert!(contents(&mut disk).is_empty());
    assert_eq!(disk.take_losses(), Losses { events: 2, damaged_files: 1 });
    disk.push(&batch(3)).unwrap();
    assert_eq!(contents(&mut disk), expected(3..4));
}

#[test]
fn a_living_process_takes_over_file_by_file_within_its_cap() {
    let root = tempfile::tempdir().unwrap();
    let mut living = Disk::open(root.path(), 4096).unwrap();
    living.push(&batch(0)).unwrap();
    let mut dying = Disk::open(root.path(), 4096).unwrap();
    for number in 1..80 {
        dying.push(&batch(number)).unwrap();
    }
    let files = segment_files(&dying.dir).len();
    assert!(files > 2);
    assert!(!living.adopt_one().unwrap(), "it lives");
    let dir = kill(dying);
    assert!(living.adopt_one().unwrap());
    assert_eq!(segment_files(&dir).len(), files - 1);
    living.push(&batch(80)).unwrap(); // not into the file that was written to before
    let taken = living.events() - 2;
    let mut order = expected(0..usize::try_from(taken).unwrap() + 1);
    order.extend(expected(80..81));
    assert_eq!(contents(&mut living), order);
    while living.adopt_one().unwrap() {}
    assert!(!dir.exists());
    assert_eq!((living.events(), contents(&mut living).len()), (81, 81));
    assert_eq!(
        living.bytes(),
        segment_files(&living.dir).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>()
    );

    let mut full = Disk::open(root.path(), living.bytes()).unwrap();
    full.push(&batch(0)).unwrap();
    let dir = kill(living);
    while full.adopt_one().unwrap() {}
    assert!(dir.exists() && !segment_files(&dir).is_empty(), "what does not fit stays where it is");
    assert_eq!(full.take_losses(), Losses::default());
}
