//! Random requests against a model of a few lines, and arbitrary bytes against nothing but survival.

use proptest::prelude::*;

use super::*;

/// Values and owners by path.
type Model = BTreeMap<String, (String, u16)>;

#[derive(Clone, Debug)]
enum Step {
    Write(String, String),
    Mkdir(String),
    Remove(String),
    Own(String, u16),
    Read(String),
    List(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| format!("/{}", names.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (path(), "[xy]{0,2}").prop_map(|(path, value)| Step::Write(path, value)),
        path().prop_map(Step::Mkdir),
        path().prop_map(Step::Remove),
        (path(), 0u16..3).prop_map(|(path, owner)| Step::Own(path, owner)),
        path().prop_map(Step::Read),
        path().prop_map(Step::List),
    ]
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/')
        .map(|(parent, _)| parent)
        .filter(|parent| !parent.is_empty())
}

/// What dom0 gets for a step, by the model.
fn expect(model: &mut Model, step: &Step) -> Result<String, Errno> {
    let ok = Ok("OK\0".to_owned());
    let create = |model: &mut Model, path: &str| {
        let mut owner = 0;
        for (at, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            owner = model
                .entry(path[..at].to_owned())
                .or_insert((String::new(), owner))
                .1;
        }
    };
    match step {
        Step::Write(path, value) => {
            create(model, path);
            model.get_mut(path).expect("just created").0 = value.clone();
            ok
        }
        Step::Mkdir(path) => {
            create(model, path);
            ok
        }
        Step::Remove(path) => {
            let there = model.contains_key(path)
                || parent(path).is_none_or(|parent| model.contains_key(parent));
            let below = format!("{path}/");
            model.retain(|other, _| other != path && !other.starts_with(&below));
            if there { ok } else { Err(Errno::NotFound) }
        }
        Step::Own(path, owner) => {
            model.get_mut(path).ok_or(Errno::NotFound)?.1 = *owner;
            ok
        }
        Step::Read(path) => model
            .get(path)
            .map(|(value, _)| value.clone())
            .ok_or(Errno::NotFound),
        Step::List(path) => {
            model.get(path).ok_or(Errno::NotFound)?;
            let below = format!("{path}/");
            let names = model
                .keys()
                .filter_map(|other| other.strip_prefix(&below))
                .filter(|name| !name.contains('/'));
            Ok(names.map(|name| format!("{name}\0")).collect())
        }
    }
}

fn perform(bench: &mut Bench, transaction: u32, step: &Step) -> Result<String, Errno> {
    match step {
        Step::Write(path, value) => bench
            .write(DOM0, transaction, path, value)
            .map(|()| "OK\0".to_owned()),
        Step::Mkdir(path) => bench.ask(DOM0, transaction, Kind::MakeDirectory, &[path]),
        Step::Remove(path) => bench.ask(DOM0, transaction, Kind::Remove, &[path]),
        Step::Own(path, owner) => bench.ask(
            DOM0,
            transaction,
            Kind::SetPermissions,
            &[path, &format!("n{owner}")],
        ),
        Step::Read(path) => bench.read(DOM0, transaction, path),
        Step::List(path) => bench.ask(DOM0, transaction, Kind::Directory, &[path]),
    }
}

fn contents(store: &Store) -> Model {
    let mut model = Model::new();
    store.tree.for_each(|path, node| {
        let value = String::from_utf8_lossy(&node.value).into_owned();
        model.insert(path.to_string(), (value, node.permissions.owner()));
    });
    model.retain(|path, _| path != "/" && !path.starts_with("/local"));
    model
}

proptest! {
    #[test]
    fn plain_requests_follow_the_model_and_survive_a_restart(steps in prop::collection::vec(step(), 0..40)) {
        let (mut bench, mut model) = (Bench::new(), Model::new());
        for step in &steps {
            prop_assert_eq!(perform(&mut bench, 0, step), expect(&mut model, step), "{:?}", step);
        }
        prop_assert_eq!(contents(&bench.store), model.clone());
        bench.restart();
        prop_assert_eq!(contents(&bench.store), model);
    }

    /// Serialisability: a transaction that commits is as good as all its requests at the moment of the commit, and
    /// reads what a snapshot of its beginning holds.
    #[test]
    fn a_committed_transaction_is_its_requests_at_the_end(
        before in prop::collection::vec(step(), 0..15),
        mixed in prop::collection::vec((0usize..3, step()), 0..25),
    ) {
        let (mut bench, mut model) = (Bench::new(), Model::new());
        for step in &before {
            perform(&mut bench, 0, step).ok();
            expect(&mut model, step).ok();
        }
        let ids = [bench.begin(DOM0), bench.begin(DOM0)];
        let mut views = [model.clone(), model.clone()];
        let mut logs: [Vec<(Step, Result<String, Errno>)>; 2] = [vec![], vec![]];
        for (who, step) in &mixed {
            match ids.get(*who) {
                Some(&id) => {
                    let answer = perform(&mut bench, id, step);
                    prop_assert_eq!(&answer, &expect(&mut views[*who], step));
                    logs[*who].push((step.clone(), answer));
                }
                None => prop_assert_eq!(perform(&mut bench, 0, step), expect(&mut model, step)),
            }
        }
        for (id, log) in ids.into_iter().zip(logs) {
            match bench.commit(DOM0, id) {
                Err(error) => prop_assert_eq!(error, Errno::Again),
                Ok(_) => {
                    for (step, answer) in &log {
                        prop_assert_eq!(&expect(&mut model, step), answer, "{:?}", step);
                    }
                }
            }
            prop_assert_eq!(contents(&bench.store), model.clone());
        }
        prop_assert_eq!(bench.store.check(), None);
    }

    /// Events of a watch on the root tell of every change, and replaying the kept changes gives the same store.
    #[test]
    fn every_change_is_told_to_a_watch_of_the_root(steps in prop::collection::vec(step(), 0..30)) {
        let mut bench = Bench::new();
        bench.good(DOM0, 0, Kind::Watch, &["/", "t"]);
        bench.events();
        for step in &steps {
            let before = contents(&bench.store);
            perform(&mut bench, 0, step).ok();
            let told = bench.events();
            if contents(&bench.store) != before {
                prop_assert!(!told.is_empty(), "{:?}", step);
            }
        }
    }

    #[test]
    fn any_request_of_a_guest_gets_one_reply_and_does_no_harm(
        requests in prop::collection::vec((0u32..25, 0u32..4, prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "(/local/domain/1/|/local/domain/2/|device|@releaseDomain|/|[a-c/]{0,4})(\0[a-cnrwb0-9TF]{0,3}){0,4}\0?".prop_map(String::into_bytes),
        ]), 0..40),
    ) {
        let mut bench = Bench::new();
        bench.write(DOM0, 0, "/local/domain/2/secret", "s").expect("dom0");
        bench.write(DOM0, 0, "/host", "h").expect("dom0");
        for (kind, transaction, payload) in requests {
            let request = Message { kind, request: 1, transaction, payload };
            let out = bench.store.handle(U1, &request, &mut bench.machine);
            prop_assert_eq!(out.iter().filter(|(_, message)| message.kind != Kind::WatchEvent.number()).count(), 1);
            prop_assert!(out.iter().all(|(to, _)| *to == U1));
        }
        prop_assert_eq!(bench.store.check(), None);
        prop_assert_eq!(bench.read(DOM0, 0, "/local/domain/2/secret"), Ok("s".to_owned()));
        prop_assert_eq!(bench.read(DOM0, 0, "/host"), Ok("h".to_owned()));
        prop_assert!(bench.store.tree.owned_by(1) <= 1000);
        bench.restart();
    }
}
