//! A disk served to a guest that is made up, by the kernel's own io_uring.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use imago::qcow2::Qcow2;
use imago::storage::StorageOpenOptions;
use imago::{
    FormatAccess, FormatCreateBuilder, FormatDriverBuilder, PermissiveImplicitOpenGate, Storage,
};
use oxen_blkif::{
    Abi, Body, Kind, REQUEST_WORDS_64, RESPONSE_WORDS_64, Request, Response, Segment, Status,
};
use oxen_ring::FrontRing;
use proptest::prelude::*;

use super::*;
use crate::guest::{CopyFault, Piece, Side};
use crate::image::Format;
use crate::ring::DiskRing;

type Memory = Arc<[AtomicU32]>;
type Pages = Arc<Mutex<BTreeMap<u32, Vec<u8>>>>;

/// Sectors of the disk.
const SECTORS: u64 = 4096;

struct Fake {
    pages: Pages,
    idle: OwnedFd,
}

impl Guest for Fake {
    fn copy<'a>(&mut self, pieces: impl Iterator<Item = Piece<'a>>) -> Result<(), CopyFault> {
        let mut pages = self.pages.lock().expect("one thread");
        for piece in pieces {
            let reference = piece.reference;
            let refused = CopyFault::Refused {
                reference,
                status: -3,
            };
            let page = pages.get_mut(&reference).ok_or(refused)?;
            let offset = usize::from(piece.offset);
            match piece.side {
                Side::In(to) => to.copy_from_slice(&page[offset..offset + to.len()]),
                Side::Out(from) => page[offset..offset + from.len()].copy_from_slice(from),
            }
        }
        Ok(())
    }

    fn notify(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn events(&mut self, each: &mut dyn FnMut(usize)) -> io::Result<()> {
        each(0);
        Ok(())
    }

    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.idle.as_fd()
    }
}

struct Bench {
    front: FrontRing<Memory, REQUEST_WORDS_64, RESPONSE_WORDS_64>,
    memory: Memory,
    journal: Memory,
    pages: Pages,
    engine: Option<Engine<Fake, Memory, Memory>>,
    file: tempfile::NamedTempFile,
    format: Format,
    read_only: bool,
    idle: (OwnedFd, OwnedFd),
}

impl Bench {
    fn new(read_only: bool) -> Self {
        Self::with(Format::Raw, read_only)
    }

    fn with(format: Format, read_only: bool) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        match format {
            Format::Raw => file.as_file().set_len(SECTORS * 512).expect("so long"),
            Format::Qcow2 => make_qcow2(file.path(), None),
        }
        let [memory, journal] =
            [(); 2].map(|()| -> Memory { (0..1024).map(|_| AtomicU32::new(0)).collect() });
        let mut bench = Self {
            front: FrontRing::new(memory.clone()).expect("a page"),
            memory,
            journal,
            pages: Pages::default(),
            engine: None,
            file,
            format,
            read_only,
            idle: rustix::pipe::pipe().expect("a pipe"),
        };
        bench.restart();
        bench
    }

    /// Another engine over the same ring, as after a worker's death.
    fn restart(&mut self) {
        if let Some(engine) = &mut self.engine
            && self.format != Format::Raw
        {
            // What a library would still write at its end is not written by one that is killed.
            let plain = Image::open(self.file.path(), Format::Raw, true).expect("a file");
            std::mem::forget(std::mem::replace(&mut engine.image, plain));
        }
        self.engine = None;
        let ring = DiskRing::attach(Abi::X86_64, self.memory.clone(), self.journal.clone());
        let ring = ring.expect("a page");
        let guest = Fake {
            pages: self.pages.clone(),
            idle: self.idle.0.try_clone().expect("a descriptor"),
        };
        let image = Image::open(self.file.path(), self.format, self.read_only).expect("an image");
        let parent = self.idle.0.try_clone().expect("a descriptor");
        let engine = Engine::new(
            guest,
            image,
            vec![Queue::new(ring)],
            parent,
            self.idle.0.as_fd(),
        );
        self.engine = Some(engine.expect("io_uring"));
    }

    fn page(&self, reference: u32, content: Vec<u8>) {
        self.pages
            .lock()
            .expect("one thread")
            .insert(reference, content);
    }

    fn ask(&mut self, id: u64, sector: u64, body: Body) {
        let request = Request { id, sector, body };
        self.front.ask(&Abi::X86_64.entry(&request)).expect("room");
        let _ = self.front.publish();
        if let Some(engine) = &mut self.engine {
            engine.queues[0].awake = true;
        }
    }

    fn one(&mut self, kind: Kind, sector: u64, reference: u32) -> Status {
        let segment = Segment::new(reference, 0, 7).expect("a page");
        let segments = [segment].into_iter().collect();
        self.ask(77, sector, Body::Direct { kind, segments });
        self.answers(1)[0].status
    }

    /// Lets it work until so many answers are there.
    fn answers(&mut self, count: usize) -> Vec<Response> {
        let mut got = Vec::new();
        loop {
            while let Some(entry) = self.front.take().expect("an honest back end") {
                got.push(Abi::X86_64.parse_answer(&entry).expect("a response"));
            }
            if got.len() >= count {
                return got;
            }
            self.turn().expect("an honest guest");
        }
    }

    /// What the disk has, by another reader than the engine.
    fn content(&self, page: u64) -> Vec<u8> {
        let mut found = vec![0; 4096];
        match self.format {
            Format::Raw => {
                (self.file.as_file().read_exact_at(&mut found, page * 4096)).expect("it is there");
            }
            Format::Qcow2 => {
                let image = Qcow2::<imago::file::File>::builder_path(self.file.path())
                    .open(PermissiveImplicitOpenGate::default());
                let image = FormatAccess::new(image.expect("an image"));
                image.read(&mut found, page * 4096).expect("it is there");
            }
        }
        found
    }

    fn turn(&mut self) -> Result<Turn, Failure> {
        self.engine.as_mut().expect("it runs").turn()
    }
}

/// A new image, perhaps an overlay of a raw one.
fn make_qcow2(path: &std::path::Path, base: Option<&str>) {
    let options = StorageOpenOptions::new().filename(path).write(true);
    let file = imago::file::File::open(options).expect("a file");
    let mut builder = Qcow2::<imago::file::File>::create_builder(file).size(SECTORS * 512);
    if let Some(base) = base {
        builder = builder.backing(base.to_owned(), "raw".to_owned());
    }
    builder.create().expect("an image");
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..4096_u32).map(|nth| (nth % 251) as u8 ^ seed).collect()
}

#[test]
fn what_is_written_is_read_and_is_in_the_file() {
    let mut bench = Bench::new(false);
    bench.page(1, pattern(3));
    bench.page(2, vec![0; 4096]);
    assert_eq!(bench.one(Kind::Write, 16, 1), Status::Okay);
    assert_eq!(bench.one(Kind::Read, 16, 2), Status::Okay);
    assert_eq!(bench.pages.lock().expect("one thread")[&2], pattern(3));
    let mut content = vec![0; 4096];
    (bench.file.as_file().read_exact_at(&mut content, 16 * 512)).expect("it is there");
    assert_eq!(content, pattern(3));
    for kind in [Kind::Barrier, Kind::Flush] {
        bench.page(1, pattern(kind.number()));
        assert_eq!(bench.one(kind, 8, 1), Status::Okay);
        assert_eq!(bench.one(Kind::Read, 8, 2), Status::Okay);
        let pages = bench.pages.lock().expect("one thread");
        assert_eq!(pages[&2], pattern(kind.number()));
    }
}

/// Linux says -1 for where a flush is, and gives flushing up for good where one fails.
#[test]
fn what_is_only_flushed_is_at_no_place() {
    for read_only in [false, true] {
        let mut bench = Bench::new(read_only);
        for kind in [Kind::Flush, Kind::Barrier] {
            for sector in [0, SECTORS + 1, u64::MAX] {
                let segments = Default::default();
                bench.ask(7, sector, Body::Direct { kind, segments });
                let answer = bench.answers(1)[0];
                assert_eq!(answer.status, Status::Okay, "{kind:?} at {sector:#x}");
            }
        }
    }
}

#[test]
fn a_barrier_does_not_wait_for_what_was_read() {
    for format in [Format::Raw, Format::Qcow2] {
        let mut bench = Bench::with(format, false);
        for reference in [1, 2] {
            bench.page(reference, pattern(3));
        }
        let body = |kind, reference| Body::Direct {
            kind,
            segments: [Segment::new(reference, 0, 7).expect("a page")]
                .into_iter()
                .collect(),
        };
        bench.ask(1, 8, body(Kind::Read, 1));
        bench.ask(2, 8, body(Kind::Barrier, 2));
        let answers = bench.answers(2);
        assert!(answers.iter().all(|answer| answer.status == Status::Okay));
    }
}

#[test]
fn parts_of_pages_go_where_they_belong() {
    let mut bench = Bench::new(false);
    bench.page(1, pattern(1));
    bench.page(2, pattern(2));
    let parts = [(1, 7, 7), (2, 0, 2)];
    let segments = parts
        .map(|(reference, first, last)| Segment::new(reference, first, last).expect("in a page"));
    let body = Body::Direct {
        kind: Kind::Write,
        segments: segments.into_iter().collect(),
    };
    bench.ask(5, 100, body);
    let answer = bench.answers(1)[0];
    assert_eq!((answer.id, answer.operation), (5, 1));
    let mut content = vec![0; 4 * 512];
    (bench.file.as_file().read_exact_at(&mut content, 100 * 512)).expect("it is there");
    assert_eq!(content[..512], pattern(1)[3584..]);
    assert_eq!(content[512..], pattern(2)[..1536]);
}

#[test]
fn indirect_requests_are_answered_in_the_name_of_what_they_stand_for() {
    let mut bench = Bench::new(false);
    let mut list = Vec::new();
    for reference in 100..120 {
        bench.page(reference, pattern(reference as u8));
        let segment = Segment::new(reference, 0, 7).expect("a page");
        list.extend(segment.words().map(u32::to_le_bytes).concat());
    }
    list.resize(4096, 0xFF);
    bench.page(9, list);
    let body = |kind| Body::Indirect {
        kind,
        count: 20,
        pages: [9].into_iter().collect(),
    };
    bench.ask(1, 0, body(Kind::Write));
    assert_eq!(bench.answers(1)[0].operation, Kind::Write.number());
    for reference in 100..120 {
        bench.page(reference, vec![0; 4096]);
    }
    bench.ask(2, 0, body(Kind::Read));
    assert_eq!(bench.answers(1)[0].status, Status::Okay);
    let pages = bench.pages.lock().expect("one thread");
    assert!((100..120).all(|nth| pages[&nth] == pattern(nth as u8)));
}

#[test]
fn a_discard_leaves_zeroes() {
    for format in [Format::Raw, Format::Qcow2] {
        discards(&mut Bench::with(format, false));
    }
}

fn discards(bench: &mut Bench) {
    bench.page(1, pattern(1));
    assert_eq!(bench.one(Kind::Write, 8, 1), Status::Okay);
    let discard = |secure| Body::Discard { sectors: 8, secure };
    bench.ask(3, 8, discard(false));
    assert_eq!(bench.answers(1)[0].status, Status::Okay);
    assert_eq!(bench.one(Kind::Read, 8, 1), Status::Okay);
    assert_eq!(bench.pages.lock().expect("one thread")[&1], vec![0; 4096]);
    bench.ask(4, 8, discard(true));
    assert_eq!(bench.answers(1)[0].status, Status::NotSupported);
}

#[test]
fn what_the_disk_cannot_do_is_an_error_and_no_more() {
    let mut bench = Bench::new(true);
    bench.page(1, pattern(1));
    assert_eq!(bench.one(Kind::Write, 0, 1), Status::Error);
    assert_eq!(bench.one(Kind::Read, SECTORS - 7, 1), Status::Error);
    assert_eq!(bench.one(Kind::Read, u64::MAX, 1), Status::Error);
    assert_eq!(bench.one(Kind::Read, SECTORS - 8, 1), Status::Okay);
    // An operation that nobody knows.
    let mut entry = [0; REQUEST_WORDS_64];
    entry[0] = 200;
    bench.front.ask(&entry).expect("room");
    let _ = bench.front.publish();
    bench.engine.as_mut().expect("it runs").queues[0].awake = true;
    assert_eq!(bench.answers(1)[0].status, Status::NotSupported);
}

/// What the engine says when it has seen what a guest did.
fn fault(prepare: impl FnOnce(&mut Bench)) -> String {
    let mut bench = Bench::new(false);
    prepare(&mut bench);
    bench.engine.as_mut().expect("it runs").queues[0].awake = true;
    for _ in 0..10 {
        match bench.turn() {
            Ok(_) => {}
            Err(Failure::Guest(text)) => return text,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nothing was noticed")
}

#[test]
fn a_guest_that_breaks_the_protocol_is_told_from_one_that_does_not() {
    let index = fault(|bench| bench.memory[0].store(33, std::sync::atomic::Ordering::Relaxed));
    assert!(index.contains("ring index 0x21"), "{index}");
    let segment = fault(|bench| {
        let mut entry = [0; REQUEST_WORDS_64];
        (entry[0], entry[7]) = (0x0101, 0x0802);
        bench.front.ask(&entry).expect("room");
        let _ = bench.front.publish();
    });
    assert!(segment.contains("sectors 2 to 8"), "{segment}");
    let revoked = fault(|bench| {
        let segment = Segment::new(55, 0, 7).expect("a page");
        let segments = [segment].into_iter().collect();
        let kind = Kind::Write;
        bench.ask(1, 0, Body::Direct { kind, segments });
    });
    assert!(revoked.contains("grant 55"), "{revoked}");
    let list = fault(|bench| {
        bench.page(9, vec![0xFF; 4096]);
        let pages = [9].into_iter().collect();
        let (kind, count) = (Kind::Read, 20);
        bench.ask(1, 0, Body::Indirect { kind, count, pages });
    });
    assert!(list.contains("sectors 255 to 255"), "{list}");
}

#[test]
fn the_end_of_whoever_started_it_is_noticed() {
    let mut bench = Bench::new(false);
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    bench.engine.as_mut().expect("it runs").parent = read;
    drop(write);
    bench.engine.as_mut().expect("it runs").queues[0].awake = false;
    assert_eq!(bench.turn().expect("no fault"), Turn::Orphaned);
}

#[test]
fn an_overlay_hides_its_base_and_leaves_it_as_it_is() {
    let base = tempfile::NamedTempFile::new().expect("a file");
    base.as_file().set_len(SECTORS * 512).expect("so long");
    base.as_file()
        .write_all_at(&pattern(9), 0)
        .expect("written");
    let mut bench = Bench::with(Format::Qcow2, false);
    make_qcow2(bench.file.path(), base.path().to_str());
    bench.restart();
    bench.page(1, pattern(1));
    bench.page(2, vec![0; 4096]);
    assert_eq!(bench.one(Kind::Read, 0, 2), Status::Okay);
    assert_eq!(bench.pages.lock().expect("one thread")[&2], pattern(9));
    assert_eq!(bench.one(Kind::Write, 8, 1), Status::Okay);
    assert_eq!(bench.one(Kind::Barrier, 0, 1), Status::Okay);
    assert_eq!(
        (bench.content(0), bench.content(1)),
        (pattern(1), pattern(1))
    );
    let mut below = vec![0; 2 * 4096];
    (base.as_file().read_exact_at(&mut below, 0)).expect("it is there");
    assert_eq!(below, [pattern(9), vec![0; 4096]].concat());
}

/// A page that is written, how, and whether the engine dies behind it.
type Steps = Vec<(u64, u8, bool)>;

/// Writes of whole pages with engines that die in between: the disk holds the last of each, and every request has one answer, in order.
fn write_and_die(format: Format, steps: Steps) {
    let mut bench = Bench::with(format, false);
    let mut expected = BTreeMap::new();
    let mut next = 0;
    let mut answered = 0;
    let mut busy: BTreeMap<u64, u64> = BTreeMap::new();
    for (page, what, die) in steps {
        // Linux has one request for a place at a time.
        let wait = busy
            .get(&page)
            .map_or(0, |number| (number + 1).saturating_sub(answered));
        for answer in bench.answers(usize::try_from(wait).expect("few")) {
            assert_eq!((answer.id, answer.status), (answered, Status::Okay));
            answered += 1;
        }
        if bench.front.room() == 0 {
            let full = bench.answers(1);
            answered += full.len() as u64;
        }
        let kind = [Kind::Write, Kind::Write, Kind::Write, Kind::Barrier][usize::from(what % 4)];
        let reference = 1000 + next as u32;
        bench.page(reference, pattern(next as u8));
        let segment = Segment::new(reference, 0, 7).expect("a page");
        let segments = [segment].into_iter().collect();
        bench.ask(next, page * 8, Body::Direct { kind, segments });
        expected.insert(page, pattern(next as u8));
        busy.insert(page, next);
        next += 1;
        if what >= 4 {
            bench.turn().expect("an honest guest");
        }
        if die {
            bench.restart();
        }
    }
    for answer in bench.answers(usize::try_from(next - answered).expect("few")) {
        assert_eq!(answer.id, answered);
        answered += 1;
    }
    bench.restart();
    for (page, content) in expected {
        assert_eq!(bench.content(page), content);
    }
}

fn any_steps() -> impl Strategy<Value = Steps> {
    // Pages of several clusters of an image.
    let page = prop_oneof![0_u64..16, (0_u64..16).prop_map(|nth| nth * 32)];
    prop::collection::vec((page, 0_u8..8, any::<bool>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn engines_that_die_lose_and_repeat_nothing(steps in any_steps()) {
        write_and_die(Format::Raw, steps);
    }
}

proptest! {
    // Each death leaves a descriptor open, as no library gets to its end.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn engines_that_die_lose_nothing_of_an_image(steps in any_steps()) {
        write_and_die(Format::Qcow2, steps);
    }
}
