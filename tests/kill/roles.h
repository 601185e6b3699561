// What this program does as a child: somebody who is killed, or who comes after it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kmcl::kill {

// Arguments of a child. `descriptors`: how many the parent had when it began; a child that has
// others than those inherited one of the library's.
std::vector<std::string> BusyClientRole(std::uint64_t seed, const std::string& address,
                                        int descriptors);
std::vector<std::string> BusyServerRole(std::uint64_t seed, const std::string& address,
                                        int descriptors);
std::vector<std::string> EchoServerRole(const std::string& address, int descriptors);
std::vector<std::string> VisitorRole(const std::string& address, int descriptors);

// What children say on their line.
inline constexpr char kReady = 'r';     // servers: clients may connect
inline constexpr char kVisit = 'v';     // to a visitor: go
inline constexpr char kVisited = 'y';   // from a visitor: the request was answered
inline constexpr char kUnserved = 'n';  // it was not

// Plays the role that the arguments name and returns its exit status. Servers and clients return
// only when they fail.
bool IsRole(int argc, char** argv);
int PlayRole(char** argv);

}  // namespace kmcl::kill
