/* The name under which driver sources include GUIDs. */
#include <kmcl/nt.h>
