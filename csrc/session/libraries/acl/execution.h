// The buffers of one model on the device, and a run on them.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "mindspore_serving/session.h"
#include "session/libraries/acl/om_model.h"

namespace msserving::acl {

// Needs the device's context to be current in the calling thread, as OmModel does, and lives shorter than its model.
// Everything is made by the constructor: a run makes nothing, it copies in, executes and copies out.
class Execution {
 public:
  Execution(const AclLibrary& acl, const OmModel& model, CopyKind to_device, CopyKind to_host);
  // Runs zeros, once in each batch size, so that a model that this device cannot run fails when it is loaded. Throws
  // std::runtime_error.
  void TrialRun();
  // Throws AclFailure. What it writes to `outputs` stays until the next run.
  void Run(const MsServingTensor* inputs, MsServingTensor* outputs);

 private:
  // A dataset with its data buffers and their memory on the device.
  struct Buffers {
    std::vector<Owned<void*>> memory;
    std::vector<Owned<DataBuffer*>> buffers;
    Owned<Dataset*> dataset;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  Buffers MakeBuffers(const std::vector<size_t>& capacities) const;
  int64_t BatchSize(const MsServingTensor* inputs) const;
  void CopyOut(size_t output, MsServingTensor* to) const;

  const AclLibrary& acl_;
  const OmModel& model_;
  CopyKind to_device_, to_host_;
  Buffers inputs_, outputs_;
  std::vector<std::unique_ptr<void, Free>> host_outputs_;
  size_t batch_input_ = 0;  // of a model with several batch sizes: an input that has the batch dimension
};

}  // namespace msserving::acl
