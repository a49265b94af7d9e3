//! What members get from the node: images and networks, through the agent's door and through `podling up`. Needs root,
//! and the packages named in packaging/test-packages.txt.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/own_node.rs"]
mod own_node;

// The makers of images and registries are shared with the tests of images.
#[path = "../images/build.rs"]
#[allow(dead_code)]
mod build;
#[path = "../images/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "../images/registry.rs"]
#[allow(dead_code)]
mod registry;

mod built;
mod names;
mod network;
mod operations;
mod pull;
mod roots;
mod sources;
mod support;
