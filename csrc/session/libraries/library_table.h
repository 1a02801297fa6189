// The C table (include/mindspore_serving/session.h) of a session library written in C++, whose sessions throw what goes
// wrong. Not for the mindspore library: its sources are shipped by themselves, and MindSpore throws more than
// exceptions.
#pragma once

#include <cstdio>
#include <exception>

#include "mindspore_serving/session.h"

namespace msserving {

// Session is the library's MsServingSession: made of what kParse(options, count) returns, with Run(inputs, outputs) and
// the public members `info` and `last_error`.
template <typename Session, auto kParse>
constexpr MsServingSessionLibrary MakeLibraryTable(const char* name) {
  MsServingSessionLibrary table{};
  table.abi_version = MS_SERVING_SESSION_ABI_VERSION;
  table.name = name;
  table.open = [](const MsServingOption* options, size_t count, Session** session, char* error, size_t error_size) {
    *session = nullptr;
    try {
      *session = new Session(kParse(options, count));
      return 0;
    } catch (const std::exception& e) {
      if (error_size > 0) std::snprintf(error, error_size, "%s", e.what());
      return 1;
    }
  };
  table.describe = [](const Session* session) { return static_cast<const MsServingSessionInfo*>(&session->info); };
  table.run = [](Session* session, const MsServingTensor* inputs, MsServingTensor* outputs) {
    try {
      session->Run(inputs, outputs);
      return 0;
    } catch (const std::exception& e) {
      session->last_error = e.what();
      return 1;
    }
  };
  table.last_error = [](const Session* session) { return session->last_error.c_str(); };
  table.close = [](Session* session) { delete session; };
  return table;
}

}  // namespace msserving
