//! Files that change without a signal: replaced, written in place, behind links that are turned.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use oncehook::webhook::event::EventKind;

use super::{
    OTHER_KEY, OTHER_SECRET, by_other, configuration, other_key, reloaded, reloads, replace,
};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::redis::until;
use crate::support::sender::{Sender, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_replaced_takes_effect_by_itself() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&configuration(&backend, &[], &["/webhook"]));
    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&by_other(1)).await.status, 401);
    replace(gateway.file(), &configuration(&backend, &[&other_key()], &["/webhook"]));
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(sender.post(&by_other(1)).await.word, "forwarded");

    // Written in place, under the inode that the first replacement brought.
    std::fs::write(gateway.file(), configuration(&backend, &[], &["/webhook"])).unwrap();
    reloaded(&gateway, "applied", 2).await;
    assert_eq!(sender.post(&by_other(1)).await.status, 401);

    // Broken, and mended.
    replace(gateway.file(), "this is no TOML");
    reloaded(&gateway, "rejected", 1).await;
    assert_eq!(sender.post(&event(EventKind::EgressEnded, 2, "EV_1")).await.word, "forwarded");
    replace(gateway.file(), &configuration(&backend, &[&other_key()], &["/webhook"]));
    reloaded(&gateway, "applied", 3).await;
    assert_eq!(sender.post(&by_other(3)).await.word, "forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_keys_in_another_folder_is_watched_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let keys = folder.path().join("keys.yaml");
    let write = |text: &str| {
        let new = keys.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&new, &keys).unwrap();
    };
    write("APIold: an-old-secret-of-at-least-thirty-two-characters\n");
    let backend = Backend::always(Action::status(200));
    let line = format!("keys_file = \"{}\"", keys.display());
    let gateway = Gateway::start(&configuration(&backend, &[&line], &["/webhook"]));
    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&by_other(1)).await.status, 401);
    write(&format!("{OTHER_KEY}: {OTHER_SECRET}\n"));
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(sender.post(&by_other(1)).await.word, "forwarded");
    let log = gateway.log();
    let told = log.iter().find(|line| line.contains("configuration reloaded")).unwrap();
    assert!(told.contains("keys_file (its file)"), "{told}");

    // Gone for good: that is told, and the keys stay.
    std::fs::remove_file(&keys).unwrap();
    reloaded(&gateway, "rejected", 1).await;
    assert_eq!(sender.post(&by_other(2)).await.word, "forwarded");
}

/// What the kubelet does (`pkg/volume/util/atomic_writer.go`): a new folder, a new link to it, and its renaming over
/// `..data`.
fn mount(volume: &Path, version: &str, text: &str) {
    let folder = volume.join(format!("..{version}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("oncehook.toml"), text).unwrap();
    let (link, data) = (volume.join("..data_tmp"), volume.join("..data"));
    let before = std::fs::read_link(&data).ok();
    symlink(format!("..{version}"), &link).unwrap();
    std::fs::rename(&link, &data).unwrap();
    if let Some(before) = before {
        std::fs::remove_dir_all(volume.join(before)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_kubernetes_takes_effect_each_time_it_is_swapped() {
    let volume = tempfile::TempDir::new().unwrap();
    let backend = Backend::always(Action::status(200));
    mount(volume.path(), "v1", &configuration(&backend, &[], &["/webhook"]));
    let file = volume.path().join("oncehook.toml");
    symlink("..data/oncehook.toml", &file).unwrap();
    let gateway = Gateway::start_from(&file);
    let sender = Sender::to(&gateway.url("/webhook"));
    for round in 1..=3_u32 {
        let number = u64::from(round);
        assert_eq!(sender.post(&by_other(number)).await.status, 401, "{round}");
        let with = configuration(&backend, &[&other_key()], &["/webhook"]);
        mount(volume.path(), &format!("with{round}"), &with);
        reloaded(&gateway, "applied", u64::from(2 * round - 1)).await;
        assert_eq!(sender.post(&by_other(number)).await.word, "forwarded", "{round}");
        let without = configuration(&backend, &[], &["/webhook"]);
        mount(volume.path(), &format!("without{round}"), &without);
        reloaded(&gateway, "applied", u64::from(2 * round)).await;
    }
    // The same content once more: nothing to do, and nobody is told.
    mount(volume.path(), "same", &configuration(&backend, &[], &["/webhook"]));
    gateway.signal("HUP");
    until("it was looked at", async || reloads(&gateway, "unchanged").await > 0).await;
    assert_eq!(reloads(&gateway, "applied").await, 6);
    assert_eq!(reloads(&gateway, "rejected").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_a_link_is_followed_when_it_is_turned() {
    let root = tempfile::TempDir::new().unwrap();
    let backend = Backend::always(Action::status(200));
    let release = |version: &str, lines: &[&str]| {
        std::fs::create_dir(root.path().join(version)).unwrap();
        let file = root.path().join(version).join("oncehook.toml");
        std::fs::write(file, configuration(&backend, lines, &["/webhook"])).unwrap();
        symlink(version, root.path().join("next")).unwrap();
        std::fs::rename(root.path().join("next"), root.path().join("current")).unwrap();
    };
    release("v1", &[]);
    let gateway = Gateway::start_from(&root.path().join("current/oncehook.toml"));
    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&by_other(1)).await.status, 401);
    release("v2", &[&other_key()]);
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(sender.post(&by_other(1)).await.word, "forwarded");
}
