#include "cli/commands.h"

namespace kmcl::cli {

void AddJsonOptions(CLI::App& app, JsonSink& json) {
  app.add_flag("--json", json.print, "Print one JSON object instead of text");
  app.add_option("--json-to", json.file, "Write that object to a file, beside what is printed")
      ->type_name("FILE");
}

void AddCommonOptions(CLI::App& app, CommonOptions& options) {
  app.add_option("--bus", options.bus, "Address of the bus: unix:PATH, or uio: in a guest")
      ->envname("KMCL_BUS")
      ->type_name("ADDRESS");
  AddJsonOptions(app, options.json);
}

}  // namespace kmcl::cli
