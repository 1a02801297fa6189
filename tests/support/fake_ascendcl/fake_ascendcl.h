// A test double of AscendCL: libascendcl.so for machines without Ascend. It "runs" models of a tiny text format of its
// own, and is stricter than the real one about the order of calls:
//
//   - nothing but aclInit() before aclInit(), nothing on a device before aclrtSetDevice(), memory and models only with
//     a context that is current in the calling thread;
//   - the device's memory cannot be touched by the host (a segmentation fault), only copied;
//   - what was made must have been given back, each thing once, when aclFinalize() is called.
//
// A model file, one fact a line, in any order ("#" begins a comment):
//
//   fake-om                       must be the first line
//   input x float32 2,3           in order; -1: the batch dimension; "-": a scalar
//   output y float32 2,3
//   run add                       add: every output is the sum of the inputs; negate: output i is -input i
//   batches 1,2,4                 the model was built for several batch sizes
//   several_sizes                 the model was built for several image sizes
//   extra_input NAME              an input by which the runtime is told something
//   abort_at 13                   a run with this number (float32) anywhere in its inputs ends the process
//   hold_at 7 FILE                a run with this number adds its process id to FILE.held and lasts until FILE is gone
//
// Environment variables, read at every call:
//
//   FAKE_ASCENDCL_FAIL=aclmdlExecute[=CODE]   this function fails (with 500001 unless said otherwise)
//   FAKE_ASCENDCL_FAIL_AFTER=N                only after N calls of it
//   FAKE_ASCENDCL_DEVICES=N                   the number of devices; 2 unless set
//   FAKE_ASCENDCL_ON_DEVICE=1                 the process runs on the device itself
//   FAKE_ASCENDCL_FOREIGN=1                   somebody has initialised it already
//   FAKE_ASCENDCL_REPORT=FILE                 aclFinalize() adds a line: live objects and broken rules
#pragma once

#include <cstddef>

extern "C" {
// Devices that are set, contexts, models, descriptions, datasets, buffers and memory not given back.
size_t fake_ascendcl_live();
// The rules broken so far, one a line.
const char* fake_ascendcl_broken_rules();
// How often a function was called.
size_t fake_ascendcl_calls(const char* function);
// Forgets calls and broken rules.
void fake_ascendcl_reset();
}
