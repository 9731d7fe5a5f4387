//! Copies, quotas, the root.

use super::*;

fn path(text: &str) -> NodePath {
    NodePath::parse(text.as_bytes(), 0).expect("a path")
}

fn creator(domain: u16, quota: usize) -> Creator {
    Creator {
        subject: Subject {
            domain,
            target: None,
        },
        quota,
    }
}

#[test]
fn a_copy_does_not_see_later_changes() {
    let mut tree = Tree::new(0);
    tree.create(&path("/a/b"), creator(0, 0)).expect("no quota");
    let snapshot = tree.clone();
    tree.set_value(&path("/a/b"), b"1");
    tree.remove(&path("/a"));
    assert!(tree.get(&path("/a")).is_none());
    assert_eq!(
        &*snapshot.get(&path("/a/b")).expect("still there").value,
        b""
    );
}

#[test]
fn nodes_are_counted_for_their_owner_and_limited() {
    let mut tree = Tree::new(0);
    assert_eq!(
        tree.create(&path("/a/b/c"), creator(3, 2)),
        Err(QuotaExceeded)
    );
    assert_eq!(
        tree.create(&path("/a/b"), creator(3, 2))
            .map(|new| new.len()),
        Ok(2)
    );
    assert_eq!(tree.owned_by(3), 2);
    tree.set_permissions(&path("/a/b"), Permissions::private(4));
    assert_eq!((tree.owned_by(3), tree.owned_by(4)), (1, 1));
    assert_eq!(tree.check(), None);
    assert_eq!(tree.remove(&path("/a")).len(), 2);
    assert_eq!((tree.owned_by(3), tree.owned_by(4)), (0, 0));
}

#[test]
fn the_root_stays() {
    let mut tree = Tree::new(0);
    assert!(tree.remove(&NodePath::root()).is_empty());
    assert!(tree.get(&NodePath::root()).is_some());
}
