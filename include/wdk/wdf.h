/* The name under which driver sources include the framework. */
#include <kmcl/wdk/wdf.h>
