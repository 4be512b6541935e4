// Package durable overwrites parts of a file so that they survive a power cut
// when the call returns.
//
// On Linux the write goes past the page cache and does not hold a thread while
// the disk works (O_DIRECT with O_DSYNC through io_submit(2), its completion
// through the runtime's poller). A blocked thread is what costs most in a
// durable write: the runtime's monitor wakes every 20 µs to take its processor
// away. Where a file system or a sandbox has no such writes they are made with
// pwrite(2), which blocks: slower, as durable.
//
// Trust: the disk is believed when it says that it has flushed. The bytes are
// not looked at.
package durable

// BlockSize is what offsets of writes are multiples of, in bytes: the largest
// block of the disks that are sold.
const BlockSize = 4096
