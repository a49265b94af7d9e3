//! The front door: who may use an API of ours, and what a listener endures.
//!
//! ```text
//!  accept ─▶ crowd (how many) ─▶ request ─▶ page (what a browser may be made to send) ─▶ keeper (who it is) ─▶ handler
//! ```
//!
//! Behind every API stands a shell as the user we run as, often root. Three kinds of callers must not get there:
//!
//! * **A web page** in a browser on this machine. It can send requests, and by DNS rebinding even read the answers.
//!   [`page`] looks at `Host`, `Origin`, `Sec-Fetch-Site` and `Content-Type`; a request that a page could have been
//!   behind is refused before anybody asks who sent it.
//! * **Other users.** Who shows a token, a user's password or a client certificate is let in ([`keeper`]). Without
//!   any, the kernel is asked who holds the other end of the connection ([`peer`]); only our own user is let in.
//! * **Members**, root ones on the host's network included: to the kernel such a member is the owner, so its uid
//!   proves nothing (the class of CVE-2020-15257).
//!
//! The rule by peer lets a connection in when all of this holds, and refuses when any of it cannot be found out:
//!
//! 1. The other end is a live socket of this network namespace whose owner is our own user. A socket that its
//!    process has closed already has no owner.
//! 2. Our end is still connected after that was asked, so the address was not somebody else's in between.
//! 3. At least one process that we can see holds it, and every one of our user's that does is in our own pid, mount
//!    and user namespaces. Members have pid and mount namespaces of their own however their network is set up;
//!    so have containers of other runtimes. A descriptor on its way between processes has no holder.
//! 4. None of them is an executor of ours or descends from one: executors fetch and probe what members name.
//! 5. The kernel remembers in which cgroup a socket was made. Where cgroup2 is mounted, each holder lives in that very
//!    one: a member that hands its socket to a daemon outside, and lets go of it, is still found out.
//!
//! What is left: on machines without cgroup2 a member with the host's file system may use a daemon of the same user
//! that takes descriptors from anybody and keeps them (5 is not there to tell). And a root member on the host's file
//! system can read any file, the token too; that is what an image is for.

mod crowd;
mod diagnosis;
mod guest;
mod holders;
mod keeper;
mod page;
mod peer;
mod take;
mod tls;
mod token;
mod users;

pub use self::{
    crowd::{Crowd, Entry, Limits, Who, descriptors_before, raise_descriptors},
    guest::{Guest, Listener, pause_after, welcome},
    keeper::{Guard, Keeper, Refusal},
    page::Names,
    peer::{Caller, Peers, Started},
    take::{TooLarge, discard, take_in},
    tls::{BadTls, Tls, TlsFiles},
    token::{BadToken, Token},
    users::{BadUsers, Role, Users},
};
