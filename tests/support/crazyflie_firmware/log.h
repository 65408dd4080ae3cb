/* Log groups are tables in the firmware; here they only have to name variables that exist. */
#pragma once

#define LOG_GROUP_START(NAME) struct log_group_of_##NAME {
#define LOG_ADD(TYPE, NAME, ADDRESS) char NAME[sizeof *(ADDRESS)];
#define LOG_GROUP_STOP(NAME) };
