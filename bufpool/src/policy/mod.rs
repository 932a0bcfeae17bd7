//! stub, overwritten by parts
#![allow(missing_docs)]
use crate::header::PageId;
use crate::pool::{Access, PolicyKind};
pub trait Policy: Send {
  fn admitted(&mut self, page: PageId, access: Access);
  fn removed(&mut self, page: PageId);
  fn victims(&mut self, want: usize, touched: &mut dyn FnMut(PageId) -> bool, out: &mut Vec<PageId>);
  fn evicted(&mut self, page: PageId);  fn kept(&mut self, page: PageId);
  fn len(&self) -> usize;
  fn resize(&mut self, frames: usize);
}
pub fn new(kind: PolicyKind, frames: usize) -> Box<dyn Policy> { unimplemented!() }
