// What a server shares with the program around it: signals, children, forks, the Python of its workers.
#include "embedding_fixture.h"

namespace mindspore_serving {
namespace {

TEST_F(EmbeddingTest, TheHostsSignalsAreLeftAlone) {
  struct sigaction before[2];
  sigaction(SIGINT, nullptr, &before[0]);
  sigaction(SIGTERM, nullptr, &before[1]);
  {
    Server server(options_);
    server.StartServables({Config("add")});
    for (const int number : {SIGINT, SIGTERM, SIGCHLD, SIGPIPE}) {
      struct sigaction now;
      sigaction(number, nullptr, &now);
      EXPECT_EQ(now.sa_handler, SIG_DFL) << number;
    }
    EXPECT_EQ(ms_serving_stop_signals_wait(-1), 0);  // not taken
  }
  for (int round = 0; round < 2; ++round) {
    StopSignals signals;
    EXPECT_EQ(signals.Wait(0), 0);
    kill(getpid(), SIGTERM);
    EXPECT_EQ(signals.Wait(), SIGTERM);
    EXPECT_EQ(signals.Wait(0), SIGTERM);
  }
  struct sigaction now;
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, before[1].sa_handler);
}

TEST_F(EmbeddingTest, AStopSignalEndsAStart) {
  MakeServable("slow", "slow", {1});
  StopSignals signals;
  Server server(options_);
  EXPECT_ERROR(server.StartServables({Config("slow")},
                                     [](const auto& workers) {
                                       if (!workers.empty()) {
                                         kill(getpid(), SIGINT);
                                       }
                                       return true;
                                     }),
               kStopped, HasSubstr("Starting the servables was interrupted by signal SIGINT"));
  server.Stop();
}

TEST_F(EmbeddingTest, SignalsOfAnEarlierRunDoNotHurryAStop) {
  {
    StopSignals signals;
    kill(getpid(), SIGINT);
    kill(getpid(), SIGINT);
    EXPECT_EQ(signals.Wait(), SIGINT);
  }
  Server server(options_);
  server.StartServables({Config("add")});
  server.Stop();
}

TEST_F(EmbeddingTest, AForkedChildLeavesTheServerToItsParent) {
  Server server(options_);
  const pid_t child = fork();
  if (child == 0) {
    int code = 1;
    try {
      server.Stop();
    } catch (const Error& error) {
      code = std::string(error.what()).find("which has forked this one") == std::string::npos ? 2 : 0;
    }
    Server gone = std::move(server);
    { const Server destroyed = std::move(gone); }
    _exit(code);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_THAT(server.Stats(), HasSubstr("workers"));
}

TEST_F(EmbeddingTest, ThePythonIsTriedBeforeAWorkerStarts) {
  options_.python = (directory_ / "nowhere" / "python").string();
  EXPECT_ERROR(Server(options_).StartServables({Config("add")}), kInvalid, HasSubstr("nowhere/python"),
               HasSubstr("which the server's options name, does not start"), HasSubstr("No such file or directory"));
  Write("empty python", "#!/bin/sh\necho ModuleNotFoundError: no such module >&2\nexit 1\n");
  chmod((directory_ / "empty python").c_str(), 0755);
  options_.python.clear();
  setenv("MSSERVING_PYTHON", (directory_ / "empty python").c_str(), 1);
  EXPECT_ERROR(Server(options_).StartServables({Config("add")}), kInvalid,
               HasSubstr("mindspore_serving cannot be imported by Python '"),
               HasSubstr("which the environment variable MSSERVING_PYTHON names"),
               HasSubstr("-m pip install mindspore-serving==" + Version()), HasSubstr("exited with status 1"),
               HasSubstr("ModuleNotFoundError: no such module"));
  setenv("MSSERVING_PYTHON", (directory_ / "python").c_str(), 1);
  setenv("TEST_VERSION", "2.9", 1);
  EXPECT_ERROR(Server(options_).StartServables({Config("add")}), kInvalid,
               HasSubstr("has mindspore_serving 2.9, but the library in this program is " + Version()));
  unsetenv("TEST_VERSION");
  Server(options_).StartServables({Config("add")});
  unsetenv("MSSERVING_PYTHON");
  EXPECT_FALSE(fs::exists("serving_logs"));
}

TEST_F(EmbeddingTest, AHostMayIgnoreItsChildren) {
  signal(SIGCHLD, SIG_IGN);
  {
    Server server(options_);
    server.StartServables({Config("add")});
    server.Stop();
  }
  signal(SIGCHLD, SIG_DFL);
}

}  // namespace
}  // namespace mindspore_serving
