/* GUIDs that are declared with DEFINE_GUID from here on are defined, in this source file. */
#ifndef INITGUID
#define INITGUID
#endif
#include <kmcl/nt.h>
