// The session library's table: a session is one OM model on one Ascend device.

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"
#include "session/libraries/acl/acl_library.h"
#include "session/libraries/acl/execution.h"
#include "session/libraries/acl/om_model.h"
#include "session/libraries/acl/options.h"
#include "session/libraries/library_table.h"

using msserving::acl::AclLibrary;
using msserving::acl::DeviceContext;
using msserving::acl::Execution;
using msserving::acl::OmModel;
using msserving::acl::OmTensor;
using msserving::acl::Options;
using msserving::acl::ParseOptions;

struct MsServingSession {
  explicit MsServingSession(const Options& options);
  ~MsServingSession();

  void Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
    context_.MakeCurrent();  // the core may call from another thread every time
    execution_.Run(inputs, outputs);
  }

  MsServingSessionInfo info{};
  std::string last_error;

 private:
  AclLibrary& acl_;
  DeviceContext context_;  // outlives what was made in it
  OmModel model_;
  Execution execution_;
  std::vector<MsServingTensorInfo> inputs_, outputs_;
};

MsServingSession::MsServingSession(const Options& options)
    : acl_(AclLibrary::Get(options.library)),
      context_(&acl_, options.device),
      model_(acl_, options.file),
      execution_(acl_, model_, context_.to_device(), context_.to_host()) {
  for (const OmTensor& input : model_.inputs()) inputs_.push_back(input.Info());
  for (const OmTensor& output : model_.outputs()) outputs_.push_back(output.Info());
  info.inputs = inputs_.data();
  info.inputs_count = inputs_.size();
  info.outputs = outputs_.data();
  info.outputs_count = outputs_.size();
  info.batch_sizes = model_.batch_sizes().data();
  info.batch_sizes_count = model_.batch_sizes().size();
  info.way = "acl";
  execution_.TrialRun();
}

// What the members hold is given back in this thread.
MsServingSession::~MsServingSession() {
  try {
    context_.MakeCurrent();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "acl session library: while a session is closed, %s\n", e.what());
  }
}

extern "C" __attribute__((visibility("default"))) const MsServingSessionLibrary* ms_serving_session_library() {
  static constexpr MsServingSessionLibrary kLibrary =
      msserving::MakeLibraryTable<MsServingSession, ParseOptions>("acl");
  return &kLibrary;
}
