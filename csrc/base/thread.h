// Starting the core's own threads.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace msserving {

// Runs `body` in a new thread, for which every signal is blocked: signals are for the user's main thread. The calling
// thread's own signals are as before when this returns. `name` is at most 15 characters, as the system wants it.
// Any thread may call it.
std::thread StartThread(std::string name, std::function<void()> body);

}  // namespace msserving
