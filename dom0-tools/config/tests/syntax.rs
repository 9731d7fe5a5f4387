//! The grammar: what is read, where errors stand, and that no text makes the parser panic.

use oxen_config::error::Position;
use oxen_config::syntax::{
    Assignment, Document, Item, MAX_LIST_DEPTH, Operator, Value, parse, parse_word,
};
use proptest::prelude::*;

/// The assignments of a text as printed text, without places.
fn printed(text: &str) -> Vec<String> {
    match parse("test.cfg", text) {
        Ok(document) => document
            .assignments
            .iter()
            .map(ToString::to_string)
            .collect(),
        Err(errors) => panic!("{errors}"),
    }
}

/// The errors of a text.
fn errors(text: &str) -> Vec<String> {
    match parse("test.cfg", text) {
        Ok(document) => panic!("no error in {text:?}: {document}"),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn statements_end_at_newlines_and_semicolons() {
    assert_eq!(
        printed("# first\n\nname = \"a\"; vcpus=2;;memory\t=\t0x100 # tail\r\nextra += 'b'"),
        [
            "name = \"a\"",
            "vcpus = 2",
            "memory = 0x100",
            "extra += \"b\""
        ],
    );
}

#[test]
fn lists_go_over_lines_and_may_end_with_a_comma() {
    assert_eq!(
        printed("disk = [ 'a,b', # the first\n  \"c\",\n\n]\nvif=[]\nx=[1,[2,\n3]]"),
        [
            "disk = [ \"a,b\", \"c\" ]",
            "vif = [ ]",
            "x = [ 1, [ 2, 3 ] ]"
        ],
    );
}

#[test]
fn strings_know_the_escapes_of_c() {
    let text = r#"a = 'it\'s "x" \\ \x41\101\n'"#;
    let document = parse("test.cfg", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        document.assignments[0].item.value,
        Value::Text("it's \"x\" \\ AA\n".to_owned()),
    );
}

#[test]
fn errors_name_file_line_column_and_key() {
    for (text, expected) in [
        (
            "name = web1\n",
            "test.cfg:1:8: name: expected a number, a string or a list, found the bare word \"web1\"; a string needs quotes: \"web1\"",
        ),
        (
            "\n  name = \"web1\n",
            "test.cfg:2:10: name: this string is not closed on its line; end it with \"",
        ),
        (
            "vcpus 2",
            "test.cfg:1:7: vcpus: expected \"=\" or \"+=\" after the key, found the number 2",
        ),
        (
            "vcpus =\n",
            "test.cfg:1:8: vcpus: expected a number, a string or a list, found the end of the line",
        ),
        (
            "a = [ 1\nb = 2",
            "test.cfg:2:1: a: expected \",\" or \"]\" in the list, found the bare word \"b\"; a string needs quotes: \"b\"",
        ),
        (
            "a = [ 1,",
            "test.cfg:1:5: a: this list is not closed; end it with \"]\"",
        ),
        ("= 2", "test.cfg:1:1: expected a key, found \"=\""),
        (
            "a = 1 b = 2",
            "test.cfg:1:7: a: expected the end of the line after the value, found the bare word \"b\"; put several assignments on one line with \";\" between them",
        ),
        (
            "a = '\\q'",
            "test.cfg:1:6: a: unknown escape in a string; known are \\\\ \\\" \\' \\a \\b \\f \\n \\r \\t \\v \\xHH and \\OOO",
        ),
        (
            "a = '\\x00'",
            "test.cfg:1:5: a: a string cannot hold the character NUL",
        ),
        (
            "a = -1",
            "test.cfg:1:5: a: unexpected character '-'; strings need quotes, as in name = \"web1\"",
        ),
    ] {
        assert_eq!(errors(text), [expected], "{text:?}");
    }
}

#[test]
fn one_wrong_line_does_not_hide_the_next() {
    let found = errors("a = x\nb = 1\nc =\nd 5\n");
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn lists_cannot_nest_without_end() {
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(errors(&deep)[0].contains(&format!("deeper than {MAX_LIST_DEPTH} levels")));
}

#[test]
fn words_of_the_command_line_need_no_quotes() {
    for (word, expected) in [
        ("memory=512", "memory = 512\n"),
        ("name=web1", "name = \"web1\"\n"),
        (
            "extra=console=hvc0 quiet",
            "extra = \"console=hvc0 quiet\"\n",
        ),
        ("extra+= debug", "extra += \"debug\"\n"),
        (
            "uuid=6f8b0c1e-4a53-4d58-9c6e-3c5a2d9f7b10",
            "uuid = \"6f8b0c1e-4a53-4d58-9c6e-3c5a2d9f7b10\"\n",
        ),
        ("cpus=\"0-3\"; vcpus=2", "cpus = \"0-3\"\nvcpus = 2\n"),
    ] {
        let document = parse_word(word).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(document.to_string(), expected, "{word}");
    }
    for wrong in ["", "name", "=x", "name=", "name='x", "a b=c"] {
        assert!(parse_word(wrong).is_err(), "{wrong:?}");
    }
}

fn item(value: Value) -> Item {
    Item {
        position: Position::default(),
        value,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = "[^\\x00]{0,12}".prop_map(Value::Text);
    let number = "0|[1-9][0-9]{0,9}|0x[0-9a-f]{1,8}".prop_map(Value::Number);
    prop_oneof![text, number].prop_recursive(4, 16, 4, |inner| {
        proptest::collection::vec(inner.prop_map(item), 0..4).prop_map(Value::List)
    })
}

fn any_document() -> impl Strategy<Value = Document> {
    let assignment =
        ("[a-z_][a-z0-9_.]{0,9}", any::<bool>(), any_value()).prop_map(|(key, append, value)| {
            Assignment {
                key,
                position: Position::default(),
                operator: if append {
                    Operator::Append
                } else {
                    Operator::Set
                },
                item: item(value),
            }
        });
    proptest::collection::vec(assignment, 0..8).prop_map(|assignments| Document {
        source_name: "test.cfg".into(),
        assignments,
    })
}

fn without_places(value: &mut Item) {
    value.position = Position::default();
    if let Value::List(items) = &mut value.value {
        items.iter_mut().for_each(without_places);
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(document in any_document()) {
        let mut read = parse("test.cfg", &document.to_string())?;
        for assignment in &mut read.assignments {
            assignment.position = Position::default();
            without_places(&mut assignment.item);
        }
        prop_assert_eq!(read, document);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), word in any::<String>()) {
        let _ = oxen_config::parse("test.cfg", &text, &[word]);
    }

    #[test]
    fn no_mixture_of_its_own_words_makes_the_parser_panic(
        words in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    "name", "memory", "disk", "vif", "cpus", "type", "=", "+=", "[", "]", ",", ";",
                    "\n", "#", "'", "\"", "\\", "0x", "12", "'pvh'", "'a,,xvda,w'", "'mac=0:1'",
                ]).prop_map(str::to_owned),
                "[ -~]{0,4}",
            ],
            0..40,
        ),
    ) {
        let _ = oxen_config::parse("test.cfg", &words.concat(), &words);
    }
}
