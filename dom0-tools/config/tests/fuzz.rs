//! Configurations of any kind. `tests/fuzz` of the workspace says how inputs are made and kept.

use oxen_config::error::Errors;
use oxen_config::keys::KEYS;
use oxen_config::syntax::{self, Document, Value};
use oxen_config::{DomainConfig, parse};
use oxen_fuzz::Target;

#[test]
fn configurations() {
    let words = [
        "pvh", "+=", "['", "']", "0x", "\\x", "^", "target=", "vdev=",
    ];
    let names = KEYS.iter().map(|key| key.name);
    Target::new(env!("CARGO_MANIFEST_DIR"), "configurations")
        .iterations(15_000)
        .words(names.chain(words))
        .run(|input| configuration(&String::from_utf8_lossy(input)));
}

/// Whatever is accepted is the same when written out and read again; whatever is refused is refused with its place.
fn configuration(text: &str) -> Option<String> {
    let document = syntax::parse("f", text);
    if let Ok(document) = &document {
        let printed = document.to_string();
        let again = syntax::parse("f", &printed).expect("what is printed can be read");
        assert_eq!(values(document), values(&again));
    }
    // The text as a word of the command line, too.
    let word = syntax::parse_word(text);
    assert!(word.is_ok() || document.is_err() || document.is_ok_and(|d| d.assignments.is_empty()));
    match parse("f", text, &[]) {
        Ok(parsed) => {
            let json = serde_json::to_string(&parsed.config).expect("it has a JSON form");
            let back: DomainConfig = serde_json::from_str(&json).expect("JSON gives it back");
            assert_eq!(back, parsed.config);
            devices(&back);
            None
        }
        Err(errors) => Some(judge(text, &errors)),
    }
}

/// What is written in a syntax of its own is so again.
fn devices(config: &DomainConfig) {
    for disk in &config.disks {
        assert_eq!(disk.to_string().parse().as_ref(), Ok(disk), "{disk}");
    }
    for affinity in [&config.cpus, &config.cpus_soft] {
        for list in (0..config.maxvcpus).filter_map(|vcpu| affinity.of(vcpu)) {
            assert_eq!(list.to_string().parse().as_ref(), Ok(list), "{list}");
        }
    }
}

fn values(document: &Document) -> Vec<(&str, &str, String)> {
    let kind = |value: &Value| value.kind();
    let assignments = document.assignments.iter();
    assignments
        .map(|it| (it.key.as_str(), kind(&it.item.value), it.to_string()))
        .collect()
}

/// The errors' messages, once their places are known to be in the text.
fn judge(text: &str, errors: &Errors) -> String {
    assert!(!errors.0.is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    for error in &errors.0 {
        let (line, column) = (error.position.line as usize, error.position.column as usize);
        // Keys that are missing have no place.
        if (line, column) == (0, 0) {
            continue;
        }
        let length = lines
            .get(line.wrapping_sub(1))
            .map(|line| line.chars().count());
        assert!(
            (1..=length.expect("a line of the text") + 1).contains(&column),
            "{error}"
        );
    }
    let kinds = errors.0.iter().map(|error| error.message.split('"').next());
    kinds.flatten().take(3).collect()
}
