//! What every disk must do, run over each of them; and what a crash may do to the one in memory.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::memory::{MemoryDisk, Operation};
use super::os::OsDisk;
use super::*;
use crate::sys::random::Random;

fn check(suite: fn(&dyn Disk)) {
    check_open(suite);
    let folder = tempfile::tempdir().unwrap();
    // Every file is closed and opened again all the time.
    suite(&OsDisk::with_open_files(folder.path(), 1));
}

/// The same, for what holds as long as files stay open.
fn check_open(suite: fn(&dyn Disk)) {
    let folder = tempfile::tempdir().unwrap();
    suite(&OsDisk::new(folder.path()));
    suite(&MemoryDisk::new(Random::seeded(1)));
}

fn write(file: &Arc<dyn File>, at: u64, bytes: &[u8]) {
    file.write_at(at, &mut [IoSlice::new(bytes)]).unwrap();
}

fn content(disk: &dyn Disk, path: &str) -> Vec<u8> {
    read(disk, Path::new(path), 1 << 20).unwrap()
}

#[test]
fn parts_are_written_in_order_and_read_back_anywhere() {
    check(|disk| {
        let file = disk.open(Path::new("a"), Open::CreateNew).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_be_bytes()[2..].to_vec()).collect();
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        slices.insert(1500, IoSlice::new(b""));
        file.write_at(0, &mut slices).unwrap();
        assert_eq!(content(disk, "a"), parts.concat());
        let mut buffer = b"kept".to_vec();
        assert_eq!(file.read_at(5998, &mut buffer, 100).unwrap(), 2);
        assert_eq!(buffer, b"kept\x0b\xb7");
        assert_eq!(file.read_at(6000, &mut buffer, 100).unwrap(), 0);
        let mut buffer = Vec::new();
        assert_eq!(file.read_cached_at(2, &mut buffer, 4).unwrap(), Some(4));
        assert_eq!(buffer, [0, 1, 0, 2]);
        file.write_at(0, &mut []).unwrap();
    });
}

#[test]
fn a_fresh_read_gives_what_was_written_last_synced_or_not() {
    check(|disk| {
        let file = disk.open(Path::new("a"), Open::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..20_000u32).flat_map(|i| i.to_be_bytes()).collect();
        write(&file, 0, &bytes);
        file.sync().unwrap();
        write(&file, 5_000, b"newer");
        for (at, count) in [(0, 80_000), (4_998, 9), (79_990, 100), (80_000, 1)] {
            let (mut fresh, mut usual) = (b"kept".to_vec(), b"kept".to_vec());
            let read = file.read_afresh(at, &mut fresh, count).unwrap();
            assert_eq!(read, file.read_at(at, &mut usual, count).unwrap());
            assert_eq!(fresh, usual);
        }
    });
}

#[test]
fn a_file_has_the_length_it_was_given() {
    check(|disk| {
        let file = disk.open(Path::new("a"), Open::Create).unwrap();
        write(&file, 0, b"0123456789");
        file.reserve(10, 1 << 20).unwrap();
        assert_eq!(file.bytes().unwrap(), 10);
        file.truncate(4).unwrap();
        write(&file, 6, b"x");
        file.sync().unwrap();
        assert_eq!(content(disk, "a"), b"0123\0\0x");
        assert_eq!(disk.file_bytes(Path::new("a")).unwrap(), 7);
        assert_eq!(
            disk.file_bytes(Path::new("b")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        file.will_read(0, 7);
        let error = read(disk, Path::new("a"), 6).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn opening_keeps_to_the_way_asked_for() {
    check(|disk| {
        let path = Path::new("a");
        let kind = |how| disk.open(path, how).map(drop).map_err(|error| error.kind());
        assert_eq!(kind(Open::Read), Err(ErrorKind::NotFound));
        assert_eq!(kind(Open::Write), Err(ErrorKind::NotFound));
        assert_eq!(kind(Open::CreateNew), Ok(()));
        assert_eq!(kind(Open::CreateNew), Err(ErrorKind::AlreadyExists));
        let file = disk.open(path, Open::Create).unwrap();
        write(&file, 0, b"1");
        drop(disk.open(path, Open::Create).unwrap());
        assert_eq!(content(disk, "a"), b"1", "opening cuts nothing");
        let file = disk.open(path, Open::Read).unwrap();
        assert!(file.write_at(0, &mut [IoSlice::new(b"2")]).is_err());
        assert!(read_if_there(disk, Path::new("b"), 10).unwrap().is_none());
    });
}

#[test]
fn folders_list_what_is_in_them_in_order() {
    check(|disk| {
        disk.create_folder(Path::new("x/y")).unwrap();
        disk.create_folder(Path::new("x/y")).unwrap();
        for name in ["x/b", "x/a", "x/y/c"] {
            disk.open(Path::new(name), Open::Create).unwrap();
        }
        let names = |folder: &str| -> Vec<_> {
            disk.list(Path::new(folder))
                .unwrap()
                .into_iter()
                .map(|entry| entry.name)
                .collect()
        };
        assert_eq!(names("x"), ["a", "b", "y"]);
        assert_eq!(disk.list(Path::new("x")).unwrap()[2].kind, EntryKind::Folder);
        disk.rename(Path::new("x"), Path::new("z")).unwrap();
        assert_eq!(names("z/y"), ["c"]);
        assert!(disk.list(Path::new("x")).is_err());
        disk.remove_file(Path::new("z/a")).unwrap();
        assert_eq!(
            disk.remove_file(Path::new("z/a")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        disk.sync_folder(Path::new("z")).unwrap();
        disk.remove_folder(Path::new("z")).unwrap();
        assert!(disk.list(Path::new("z")).is_err());
        assert!(disk.open(Path::new("none/a"), Open::Create).is_err());
    });
}

#[test]
fn a_file_is_replaced_and_an_old_handle_keeps_the_old_one() {
    check_open(|disk| {
        replace(disk, Path::new("f"), b"one").unwrap();
        let old = disk.open(Path::new("f"), Open::Read).unwrap();
        replace(disk, Path::new("f"), b"2").unwrap();
        assert_eq!(content(disk, "f"), b"2");
        let mut buffer = Vec::new();
        old.read_at(0, &mut buffer, 10).unwrap();
        assert_eq!(buffer, b"one");
        assert_eq!(
            disk.list(Path::new("")).unwrap().len(),
            1,
            "nothing is left beside it"
        );
    });
}

#[test]
fn a_lock_is_held_by_one() {
    check(|disk| {
        let held = disk.lock(Path::new("lock")).unwrap();
        assert_eq!(
            disk.lock(Path::new("lock")).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        drop(held);
        disk.lock(Path::new("lock")).unwrap();
    });
}

#[test]
fn free_room_is_known() {
    check(|disk| assert!(disk.free_bytes(Path::new("")).unwrap() > 1 << 20));
}

#[test]
fn a_crash_keeps_what_was_synced_and_tears_the_rest() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = MemoryDisk::new(Random::seeded(seed));
        let file = disk.open(Path::new("a"), Open::Create).unwrap();
        write(&file, 0, &[1; 1024]);
        file.sync().unwrap();
        disk.sync_folder(Path::new("")).unwrap();
        write(&file, 1024, &[2; 1024]);
        write(&file, 512, &[3; 512]);
        disk.crash();
        assert!(file.bytes().is_err(), "handles die with the process");
        let after = content(&disk, "a");
        assert_eq!(after[..512], [1; 512]);
        assert!(after[512..1024] == [1; 512] || after[512..1024] == [3; 512]);
        outcomes.insert(after);
    }
    assert!(outcomes.len() >= 6, "only {} ways to lose", outcomes.len());
}

#[test]
fn a_name_not_synced_may_be_lost_and_a_replaced_file_never_is() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = MemoryDisk::new(Random::seeded(seed));
        replace(&disk, Path::new("f"), b"old").unwrap();
        let file = disk.open(Path::new("g"), Open::Create).unwrap();
        file.sync().unwrap();
        let new = disk.open(Path::new("f.new"), Open::Create).unwrap();
        write(&new, 0, b"new");
        new.sync().unwrap();
        disk.rename(Path::new("f.new"), Path::new("f")).unwrap();
        disk.crash();
        lost += usize::from(disk.open(Path::new("g"), Open::Read).is_err());
        assert!([b"old", b"new"].contains(&content(&disk, "f").as_slice().try_into().unwrap()));
    }
    assert!((1..40).contains(&lost));
}

#[test]
fn a_killed_process_loses_nothing_but_its_handles() {
    let disk = MemoryDisk::new(Random::seeded(0));
    let _lock = disk.lock(Path::new("lock")).unwrap();
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    write(&file, 0, b"abc");
    disk.kill();
    assert!(file.sync().is_err());
    assert_eq!(content(&disk, "a"), b"abc");
    disk.lock(Path::new("lock")).unwrap();
}

#[test]
fn a_full_disk_takes_a_part_and_says_so() {
    let disk = MemoryDisk::new(Random::seeded(0));
    disk.set_capacity(10);
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    write(&file, 0, b"123456");
    let error = file.write_at(6, &mut [IoSlice::new(b"789abc")]).unwrap_err();
    assert!(is_full(&error));
    assert_eq!(content(&disk, "a"), b"123456789a");
    write(&file, 0, b"in place");
    file.truncate(3).unwrap();
    assert_eq!(disk.free_bytes(Path::new("")).unwrap(), 7);
}

#[test]
fn a_failed_sync_loses_the_bytes_for_good() {
    let disk = MemoryDisk::new(Random::seeded(0));
    let file = disk.open(Path::new("a"), Open::Create).unwrap();
    disk.sync_folder(Path::new("")).unwrap();
    disk.fail(Operation::Sync, 1, ErrorKind::Other);
    write(&file, 0, b"kept");
    file.sync().unwrap();
    write(&file, 4, b"lost");
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(content(&disk, "a"), b"keptlost");
    disk.crash();
    assert_eq!(content(&disk, "a"), b"kept");
}
