//! A guest's pages and event channels.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use oxen_xen::evtchn::EventChannels;
use oxen_xen::gntdev::{CopyBatch, GrantMapping, GrantPart, Grants};
use oxen_xen::grant::BAD_DOMAIN;
use thiserror::Error;

use crate::kept::Kept;

/// A part of a granted page to be copied, and the memory here.
pub struct Piece<'a> {
    /// The page's grant.
    pub reference: u32,
    /// First byte in the page.
    pub offset: u16,
    /// Which way, and from or to where.
    pub side: Side<'a>,
}

/// This side of a copy.
pub enum Side<'a> {
    /// From the guest to here.
    In(&'a mut [u8]),
    /// From here to the guest.
    Out(&'a [u8]),
}

/// Why nothing was copied.
#[derive(Debug, Error)]
pub enum CopyFault {
    /// The guest has not granted a page, or not any more.
    #[error("page with grant {reference} cannot be copied (grant status {status})")]
    Refused {
        /// The grant.
        reference: u32,
        /// The hypervisor's `GNTST_*`.
        status: i16,
    },
    /// There is no such guest any more.
    #[error("the guest has ended")]
    Ended,
    /// The device failed.
    #[error("granted pages cannot be copied: {0}")]
    Device(#[from] io::Error),
}

/// What the engine needs of a guest.
pub trait Guest {
    /// Makes all copies.
    ///
    /// # Errors
    /// The first that could not be made; others may have been.
    fn copy<'a>(&mut self, pieces: impl Iterator<Item = Piece<'a>>) -> Result<(), CopyFault>;

    /// Sends an event to the guest's end of a queue.
    ///
    /// # Errors
    /// The channel is gone.
    fn notify(&mut self, queue: usize) -> io::Result<()>;

    /// Tells the queues for which the guest has sent events, and lets further ones in.
    ///
    /// # Errors
    /// The device failed.
    fn events(&mut self, each: &mut dyn FnMut(usize)) -> io::Result<()>;

    /// Readable when [`Guest::events`] has something to say.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// A guest of the hypervisor.
#[derive(Debug)]
pub struct XenGuest {
    domid: u16,
    grants: Grants,
    events: EventChannels,
    /// Our port of each queue.
    ports: Vec<u32>,
    /// Pages that stay mapped, where the guest keeps their grants.
    kept: Option<Kept<GrantMapping>>,
}

impl XenGuest {
    /// Binds to the guest's ports of its queues.
    ///
    /// # Errors
    /// A port that the guest names is not there, not for this domain or in use.
    pub fn new(
        domid: u16,
        grants: Grants,
        events: EventChannels,
        remote_ports: &[u32],
    ) -> io::Result<Self> {
        let ports = remote_ports.iter().map(|&port| {
            let bound = events.bind_interdomain(domid, port);
            bound.map_err(|error| {
                io::Error::new(error.kind(), format!("event channel {port}: {error}"))
            })
        });
        let ports = ports.collect::<io::Result<_>>()?;
        Ok(Self {
            domid,
            grants,
            events,
            ports,
            kept: None,
        })
    }

    /// The guest keeps its grants: each page is mapped once, and copied by this process from then on.
    pub fn keep_grants(&mut self) {
        self.kept = Some(Kept::default());
    }

    /// Copies what is mapped; `None` if the hypervisor has to do that, who also knows why it cannot be done.
    fn copy_mapped(&mut self, piece: &mut Piece<'_>) -> Option<()> {
        let kept = self.kept.as_mut()?;
        let (grants, domid) = (&self.grants, self.domid);
        let page = kept.page(piece.reference, || {
            grants.map(domid, &[piece.reference]).ok()
        })?;
        let offset = usize::from(piece.offset);
        match &mut piece.side {
            Side::In(to) => page.read(offset, to),
            Side::Out(from) => page.write(from, offset),
        }
        Some(())
    }
}

impl Guest for XenGuest {
    fn copy<'a>(&mut self, pieces: impl Iterator<Item = Piece<'a>>) -> Result<(), CopyFault> {
        let mut batch = CopyBatch::default();
        for mut piece in pieces {
            if self.copy_mapped(&mut piece).is_some() {
                continue;
            }
            let part = GrantPart {
                domid: self.domid,
                reference: piece.reference,
                offset: piece.offset,
            };
            match piece.side {
                Side::In(to) => batch.from_grant(part, to),
                Side::Out(from) => batch.to_grant(from, part),
            }
        }
        self.grants.copy(&mut batch)?;
        match batch.first_refused() {
            None => Ok(()),
            Some((_, BAD_DOMAIN)) => Err(CopyFault::Ended),
            Some((reference, status)) => Err(CopyFault::Refused { reference, status }),
        }
    }

    fn notify(&mut self, queue: usize) -> io::Result<()> {
        self.events.notify(self.ports[queue])
    }

    fn events(&mut self, each: &mut dyn FnMut(usize)) -> io::Result<()> {
        let ports = &self.ports;
        self.events.take(|port| {
            if let Some(queue) = ports.iter().position(|own| *own == port) {
                each(queue);
            }
        })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
